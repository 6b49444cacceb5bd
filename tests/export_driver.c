// Stands for libcuda.so.1: prints what it is told. $PARAMS says what each parameter of a launch is:
// m, a tensor map; p, a pointer; s, a scalar; w, a pitch of 64 bits.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int maps;

int cuInit(unsigned flags) { return (int)flags; }
int cuGetErrorString(int status, const char** text) {
  *text = "its text";
  return status == 0;
}
int cuCtxGetCurrent(void** context) {
  *context = getenv("NO_CONTEXT") ? NULL : &maps;
  return 0;
}
int cuCtxGetDevice(int* device) { return *device = 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  *value = attribute == 75 ? 9 : attribute == 76 ? 0 : 132;
  return device;
}
int cuModuleLoadData(void** module, const void* image) {
  printf("load %.10s\n", (const char*)image);
  *module = &maps;
  return getenv("NO_LOAD") ? 200 : 0;
}
int cuModuleUnload(void* module) { return module == NULL; }
int cuModuleGetFunction(void** function, void* module, const char* name) {
  printf("function %s\n", name);
  *function = &maps;
  return module == NULL;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
  printf("attribute %d %d\n", attribute, value);
  return function == NULL;
}
int cuOccupancyMaxActiveClusters(int* count, void* function, const void* config) {
  *count = 60;
  return function == NULL || config == NULL;
}
int cuTensorMapEncodeTiled(unsigned char* map, int type, uint32_t rank, void* address,
                           const uint64_t* dims, const uint64_t* strides, const uint32_t* box,
                           const uint32_t* steps, int interleave, int swizzle, int promotion,
                           int fill) {
  printf("map %d %d %ju %d %d %d %d", maps, type, (uintmax_t)(uintptr_t)address, interleave,
         swizzle, promotion, fill);
  for (uint32_t i = 0; i < rank; ++i) printf(" %ju %u %u", (uintmax_t)dims[i], box[i], steps[i]);
  for (uint32_t i = 0; i + 1 < rank; ++i) printf(" %ju", (uintmax_t)strides[i]);
  printf("\n");
  map[5] = (unsigned char)maps++;
  return (uintptr_t)map % 64;
}
int cuLaunchKernelEx(const unsigned* config, void* function, void** params, void** extra) {
  const char* kinds = getenv("PARAMS");
  printf("launch");
  for (int i = 0; i < 7; ++i) printf(" %u", config[i]);
  void* stream;
  unsigned* attributes;
  memcpy(&stream, config + 8, sizeof stream);
  memcpy(&attributes, config + 10, sizeof attributes);
  printf(" %ju", (uintmax_t)(uintptr_t)stream);
  // An attribute is its id, four bytes of nothing, and a value of 64 bytes.
  for (unsigned i = 0; i < config[12]; ++i)
    printf(" %u=%u", attributes[18 * i], attributes[18 * i + 2]);
  for (int i = 0; kinds[i]; ++i) {
    uint64_t pointer = 0;
    uint32_t scalar = 0;
    if (kinds[i] == 'm') scalar = ((unsigned char*)params[i])[5];
    if (kinds[i] == 's') memcpy(&scalar, params[i], sizeof scalar);
    if (kinds[i] == 'p' || kinds[i] == 'w') memcpy(&pointer, params[i], sizeof pointer);
    printf(" %c%ju", kinds[i], (uintmax_t)(pointer + scalar));
  }
  printf("\n");
  maps = 0;
  return function == NULL || extra != NULL;
}
