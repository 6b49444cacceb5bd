// What a bound launch does, without ctypes: `launcher.py` compiles this where a C compiler is. All else
// (another context, a refusal) is left to the launch in Python that every one of these holds.

#define Py_LIMITED_API 0x030a0000
#include <Python.h>
#include <structmember.h>

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

static void launch_dealloc(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  launch_clear(object);
  freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
  release(object);
  Py_DECREF(type);
}

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

static int execute(PyObject* module) {
  PyObject* type = PyType_FromSpec(&launch_spec);
  if (type == NULL) return -1;
  int status = PyModule_AddObjectRef(module, "Launch", type);
  Py_DECREF(type);
  return status;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, execute}, {0, NULL}};
static PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "gemmgen_launcher", NULL, 0, NULL, module_slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit_gemmgen_launcher(void);
PyMODINIT_FUNC PyInit_gemmgen_launcher(void) { return PyModuleDef_Init(&module); }
