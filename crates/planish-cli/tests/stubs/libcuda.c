// A CUDA driver without a GPU, for tests of what planish says when one fails: memory is the processor's, kernels do nothing.
// PLANISH_STUB_VERSION is the driver's version, PLANISH_STUB_FREE the bytes that are free; PLANISH_STUB_FAIL is as cuMemAlloc_v2=2@5: that function answers 2 from its fifth
// call on. Names and codes are those of cuda.h.
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long pointer_t;

static int fails(const char* name) {
    static int calls = 0;
    const char* wanted = getenv("PLANISH_STUB_FAIL");
    const size_t length = strlen(name);
    if (!wanted || strncmp(wanted, name, length) || wanted[length] != '=') return 0;
    const char* from = strchr(wanted, '@');
    return ++calls >= (from ? atoi(from + 1) : 1) ? atoi(wanted + length + 1) : 0;
}

#define CALL(name, arguments, ...)   \
    int name arguments {             \
        const int failure = fails(#name); \
        if (failure) return failure; \
        __VA_ARGS__;                 \
        return 0;                    \
    }
#define SOME_HANDLE (void*)0x1000

CALL(cuInit, (unsigned flags), )
CALL(cuDriverGetVersion, (int* version), const char* set = getenv("PLANISH_STUB_VERSION"); *version = set ? atoi(set) : 13000)
CALL(cuDeviceGet, (int* device, int ordinal), *device = 0)
CALL(cuDeviceGetName, (char* name, int length, int device), strncpy(name, "Stub GPU", length))
// Of an H100: compute capability 9.0, 132 multiprocessors.
CALL(cuDeviceGetAttribute, (int* value, int attribute, int device), *value = attribute == 75 ? 9 : attribute == 16 ? 132 : 0)
CALL(cuDevicePrimaryCtxRetain, (void** context, int device), *context = SOME_HANDLE)
CALL(cuDevicePrimaryCtxRelease_v2, (int device), )
CALL(cuCtxSetCurrent, (void* context), )
CALL(cuMemGetInfo_v2, (size_t* free, size_t* total), const char* set = getenv("PLANISH_STUB_FREE"); *total = 80000000000, *free = set ? atoi(set) : 70000000000)
CALL(cuMemAlloc_v2, (pointer_t* memory, size_t bytes), *memory = (pointer_t)calloc(bytes, 1))
CALL(cuMemFree_v2, (pointer_t memory), free((void*)memory))
CALL(cuMemHostAlloc, (void** memory, size_t bytes, unsigned flags), *memory = calloc(bytes, 1))
CALL(cuMemFreeHost, (void* memory), free(memory))
CALL(cuMemsetD8Async, (pointer_t to, unsigned char value, size_t bytes, void* stream), memset((void*)to, value, bytes))
CALL(cuMemcpyHtoDAsync_v2, (pointer_t to, const void* from, size_t bytes, void* stream), memcpy((void*)to, from, bytes))
CALL(cuMemcpyDtoHAsync_v2, (void* to, pointer_t from, size_t bytes, void* stream), memcpy(to, (void*)from, bytes))
CALL(cuMemcpyDtoDAsync_v2, (pointer_t to, pointer_t from, size_t bytes, void* stream), memmove((void*)to, (void*)from, bytes))
CALL(cuStreamCreate, (void** stream, unsigned flags), *stream = SOME_HANDLE)
CALL(cuStreamSynchronize, (void* stream), )
CALL(cuStreamDestroy_v2, (void* stream), )
CALL(cuEventCreate, (void** event, unsigned flags), *event = SOME_HANDLE)
CALL(cuEventRecord, (void* event, void* stream), )
CALL(cuEventSynchronize, (void* event), )
CALL(cuEventDestroy_v2, (void* event), )
CALL(cuModuleLoadData, (void** module, const void* code), *module = SOME_HANDLE)
CALL(cuModuleGetFunction, (void** function, void* module, const char* name), *function = SOME_HANDLE)
// Dynamic shared memory is refused where a function has not asked for it: how much it has in static memory is not known here.
static int granted = 0;
CALL(cuFuncSetAttribute, (void* function, int attribute, int value), if (attribute == 8) granted = value > granted ? value : granted)
CALL(cuLaunchKernelEx, (const unsigned* config, void* function, void** arguments, void** extra), if ((int)config[6] > granted) return 1)
CALL(cuGraphCreate, (void** graph, unsigned flags), *graph = SOME_HANDLE)
CALL(cuGraphDestroy, (void* graph), )
CALL(cuGraphAddKernelNode_v2, (void** node, void* graph, const void* before, size_t count, const void* parameters), *node = SOME_HANDLE)
CALL(cuGraphAddDependencies_v2, (void* graph, const void* from, const void* to, const void* edges, size_t count), )
CALL(cuGraphInstantiateWithFlags, (void** executable, void* graph, unsigned long long flags), *executable = SOME_HANDLE)
CALL(cuGraphExecKernelNodeSetParams_v2, (void* executable, void* node, const void* parameters), )
CALL(cuGraphExecDestroy, (void* executable), )
CALL(cuGraphLaunch, (void* executable, void* stream), )
CALL(cuGetErrorString, (int error, const char** text), *text = "words of the stub")
CALL(cuGetErrorName, (int error, const char** text), *text = "STUB")
