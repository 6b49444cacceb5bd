// What every call does, in C: `launcher.py` compiles this where a C compiler is. All that is unusual
// is left to Python: each object here holds its equal there.

#define Py_LIMITED_API 0x030a0000
#include <Python.h>
#include <structmember.h>

// ---- The launch -------------------------------------------------------------------------------

// What of cuda.h (CUDA 12.0) is used, so that it need not be there.
typedef struct {
  unsigned grid[3], block[3], shared_bytes;
  void* stream;
  void* attributes;
  unsigned attribute_count;
} LaunchConfig;
typedef int (*LaunchKernelEx)(const LaunchConfig*, void*, void**, void**);
typedef int (*CtxGetCurrent)(void**);

typedef struct {
  PyObject_HEAD
  PyObject* python;      // the same launch in Python; it keeps the parameters
  PyObject* prototype;   // what `config` was copied from; it keeps the attributes
  PyObject* stream_of;   // called with `arguments`, gives the handle of a stream
  PyObject* arguments;   // the index of the GPU
  LaunchConfig config;   // on any stream: a launch fills in its own
  LaunchKernelEx launch_kernel;
  CtxGetCurrent get_current;
  void* context;
  void* function;
  void** params;
} Launch;

static PyObject* launch_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  PyObject *python, *prototype, *stream_of, *arguments;
  unsigned long long config, launch_kernel, get_current, context, function, params;
  if (kwargs != NULL && PyDict_Size(kwargs) != 0) {
    PyErr_SetString(PyExc_TypeError, "Launch takes no keywords");
    return NULL;
  }
  if (!PyArg_ParseTuple(args, "OOOO!KKKKKK", &python, &prototype, &stream_of, &PyTuple_Type,
                        &arguments, &config, &launch_kernel, &get_current, &context, &function,
                        &params)) {
    return NULL;
  }
  allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
  Launch* self = (Launch*)allocate(type, 0);
  if (self == NULL) return NULL;
  self->python = Py_NewRef(python);
  self->prototype = Py_NewRef(prototype);
  self->stream_of = Py_NewRef(stream_of);
  self->arguments = Py_NewRef(arguments);
  self->config = *(const LaunchConfig*)(uintptr_t)config;
  self->launch_kernel = (LaunchKernelEx)(uintptr_t)launch_kernel;
  self->get_current = (CtxGetCurrent)(uintptr_t)get_current;
  self->context = (void*)(uintptr_t)context;
  self->function = (void*)(uintptr_t)function;
  self->params = (void**)(uintptr_t)params;
  return (PyObject*)self;
}

static PyObject* launch_call(PyObject* object, PyObject* args, PyObject* kwargs) {
  Launch* self = (Launch*)object;
  if (PyTuple_Size(args) != 0 || (kwargs != NULL && PyDict_Size(kwargs) != 0)) {
    PyErr_SetString(PyExc_TypeError, "a launch takes no arguments");
    return NULL;
  }
  void* current = NULL;
  if (self->get_current(&current) != 0 || current != self->context) {
    return PyObject_CallNoArgs(self->python);
  }
  PyObject* stream = PyObject_Call(self->stream_of, self->arguments, NULL);
  if (stream == NULL) return NULL;
  LaunchConfig config = self->config;  // of this call alone: threads share the object
  config.stream = PyLong_AsVoidPtr(stream);
  Py_DECREF(stream);
  if (config.stream == NULL && PyErr_Occurred()) return NULL;
  int status;
  Py_BEGIN_ALLOW_THREADS  // the driver waits while its queue is full
  status = self->launch_kernel(&config, self->function, self->params, NULL);
  Py_END_ALLOW_THREADS
  if (status != 0) return PyObject_CallMethod(self->python, "refuse", "i", status);
  Py_RETURN_NONE;
}

static int launch_traverse(PyObject* object, visitproc visit, void* arg) {
  Launch* self = (Launch*)object;
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(self->python);
  Py_VISIT(self->prototype);
  Py_VISIT(self->stream_of);
  Py_VISIT(self->arguments);
  return 0;
}

static int launch_clear(PyObject* object) {
  Launch* self = (Launch*)object;
  Py_CLEAR(self->python);
  Py_CLEAR(self->prototype);
  Py_CLEAR(self->stream_of);
  Py_CLEAR(self->arguments);
  return 0;
}

static void release(PyObject* object, inquiry clear) {
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  clear(object);
  freefunc give_back = (freefunc)PyType_GetSlot(type, Py_tp_free);
  give_back(object);
  Py_DECREF(type);
}

static void launch_dealloc(PyObject* object) { release(object, launch_clear); }

static PyMemberDef launch_members[] = {
    {"python", T_OBJECT_EX, offsetof(Launch, python), READONLY, "The same launch in Python."},
    {NULL, 0, 0, 0, NULL},
};
static PyType_Slot launch_slots[] = {
    {Py_tp_new, launch_new},         {Py_tp_call, launch_call},
    {Py_tp_traverse, launch_traverse}, {Py_tp_clear, launch_clear},
    {Py_tp_dealloc, launch_dealloc}, {Py_tp_members, launch_members},
    {0, NULL},
};
static PyType_Spec launch_spec = {
    "gemmgen_launcher.Launch", sizeof(Launch), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    launch_slots,
};

// ---- The identity of tensors ------------------------------------------------------------------

enum { MOST_TENSORS = 16, MOST_AXES = 4, WORDS = 2 + 2 * MOST_AXES };

// What of dlpack.h (version 1) is used.
enum { FLOAT = 2, BFLOAT = 4 };  // types of elements: not those of 8 bits
typedef struct {
  void* data;
  int32_t device[2], axes;
  struct {
    uint8_t code, bits;
    uint16_t lanes;
  } dtype;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} DLTensor;
typedef struct {
  uint32_t major, minor;
  void* previous;
  void *allocate, *managed_from_object, *managed_to_object;
  int (*tensor_from_object)(void*, DLTensor*);
} ExchangeApi;

typedef struct {
  PyObject_HEAD
  PyObject* python;    // the same in Python, for tensors that have a say in what they are
  PyObject* exchange;  // the capsule of `api`
  PyObject* is_neg;
  PyObject *tensor, *parameter;  // the types that are looked into
  const ExchangeApi* api;
} Identity;

static PyObject* identity_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  PyObject *python, *exchange, *is_neg, *tensor, *parameter;
  if (kwargs != NULL && PyDict_Size(kwargs) != 0) {
    PyErr_SetString(PyExc_TypeError, "Identity takes no keywords");
    return NULL;
  }
  if (!PyArg_ParseTuple(args, "OOOOO", &python, &exchange, &is_neg, &tensor, &parameter)) {
    return NULL;
  }
  const ExchangeApi* api = PyCapsule_GetPointer(exchange, "dlpack_exchange_api");
  if (api == NULL) return NULL;
  if (api->major != 1) {
    return PyErr_Format(PyExc_ImportError, "DLPack %u instead of 1", (unsigned)api->major);
  }
  allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
  Identity* self = (Identity*)allocate(type, 0);
  if (self == NULL) return NULL;
  self->python = Py_NewRef(python);
  self->exchange = Py_NewRef(exchange);
  self->is_neg = Py_NewRef(is_neg);
  self->tensor = Py_NewRef(tensor);
  self->parameter = Py_NewRef(parameter);
  self->api = api;
  return (PyObject*)self;
}

// Writes what a kernel sees of a tensor; how many words, 0: Python has to look, -1: an exception.
static Py_ssize_t describe(Identity* self, PyObject* object, uint64_t* words) {
  if (object == Py_None) {
    words[0] = UINT64_MAX;  // no address
    return 1;
  }
  PyObject* type = (PyObject*)Py_TYPE(object);
  if (type != self->tensor && type != self->parameter) return 0;
  DLTensor tensor;
  if (self->api->tensor_from_object(object, &tensor) != 0) {
    PyErr_Clear();  // sparse, or not in memory: Python knows how to say so
    return 0;
  }
  if (tensor.axes > MOST_AXES) return 0;
  // Only the imaginary part of a conjugate is negated by a bit: DLPack does not tell.
  if (tensor.dtype.code == FLOAT || tensor.dtype.code == BFLOAT) {
    PyObject* negated = PyObject_CallFunctionObjArgs(self->is_neg, object, NULL);
    if (negated == NULL) return -1;
    int plain = negated == Py_False;
    Py_DECREF(negated);
    if (!plain) return 0;
  }
  words[0] = (uint64_t)(uintptr_t)tensor.data + tensor.byte_offset;
  words[1] = (uint64_t)tensor.axes << 32 | (uint64_t)tensor.dtype.code << 24 |
             (uint64_t)tensor.dtype.bits << 16 | tensor.dtype.lanes;
  for (int32_t axis = 0; axis < tensor.axes; ++axis) {
    words[2 + 2 * axis] = (uint64_t)tensor.shape[axis];
    words[3 + 2 * axis] = (uint64_t)tensor.strides[axis];
  }
  return 2 + 2 * tensor.axes;
}

static PyObject* identity_call(PyObject* object, PyObject* args, PyObject* kwargs) {
  Identity* self = (Identity*)object;
  uint64_t words[MOST_TENSORS * WORDS];
  PyObject* tensors = PyTuple_Size(args) == 1 ? PyTuple_GetItem(args, 0) : NULL;
  if (tensors == NULL || !PyTuple_Check(tensors) || PyTuple_Size(tensors) > MOST_TENSORS) {
    return PyObject_Call(self->python, args, kwargs);
  }
  Py_ssize_t count = PyTuple_Size(tensors), used = 0;
  for (Py_ssize_t i = 0; i < count; ++i) {
    Py_ssize_t more = describe(self, PyTuple_GetItem(tensors, i), words + used);
    if (more < 0) return NULL;
    if (more == 0) return PyObject_Call(self->python, args, kwargs);
    used += more;
  }
  return PyBytes_FromStringAndSize((const char*)words, used * (Py_ssize_t)sizeof *words);
}

static int identity_traverse(PyObject* object, visitproc visit, void* arg) {
  Identity* self = (Identity*)object;
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(self->python);
  Py_VISIT(self->exchange);
  Py_VISIT(self->is_neg);
  Py_VISIT(self->tensor);
  Py_VISIT(self->parameter);
  return 0;
}

static int identity_clear(PyObject* object) {
  Identity* self = (Identity*)object;
  Py_CLEAR(self->python);
  Py_CLEAR(self->exchange);
  Py_CLEAR(self->is_neg);
  Py_CLEAR(self->tensor);
  Py_CLEAR(self->parameter);
  return 0;
}

static void identity_dealloc(PyObject* object) { release(object, identity_clear); }

static PyType_Slot identity_slots[] = {
    {Py_tp_new, identity_new},           {Py_tp_call, identity_call},
    {Py_tp_traverse, identity_traverse}, {Py_tp_clear, identity_clear},
    {Py_tp_dealloc, identity_dealloc},   {0, NULL},
};
static PyType_Spec identity_spec = {
    "gemmgen_launcher.Identity", sizeof(Identity), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    identity_slots,
};

// ---- The module -------------------------------------------------------------------------------

static int add(PyObject* module, const char* name, PyType_Spec* spec) {
  PyObject* type = PyType_FromSpec(spec);
  if (type == NULL) return -1;
  int status = PyModule_AddObjectRef(module, name, type);
  Py_DECREF(type);
  return status;
}

static int execute(PyObject* module) {
  if (add(module, "Launch", &launch_spec) != 0) return -1;
  return add(module, "Identity", &identity_spec);
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, execute}, {0, NULL}};
static PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "gemmgen_launcher", NULL, 0, NULL, module_slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_gemmgen_launcher(void);
PyMODINIT_FUNC PyInit_gemmgen_launcher(void) { return PyModuleDef_Init(&module); }
