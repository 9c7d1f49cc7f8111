// An NVRTC that compiles nothing, for tests of what planish says: PLANISH_STUB_COMPILE is what nvrtcCompileProgram answers.
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

static const char LOG[] = "planish.cu(7): error: words of the stub";

int nvrtcCreateProgram(void** program, const char* text, const char* name, int count, const void* headers, const void* names) {
    *program = (void*)0x1000;
    return 0;
}
int nvrtcDestroyProgram(void** program) { return 0; }
int nvrtcCompileProgram(void* program, int count, const char* const* options) {
    const char* answer = getenv("PLANISH_STUB_COMPILE");
    return answer ? atoi(answer) : 0;
}
int nvrtcGetProgramLogSize(void* program, size_t* size) { *size = sizeof LOG; return 0; }
int nvrtcGetProgramLog(void* program, char* log) { memcpy(log, LOG, sizeof LOG); return 0; }
int nvrtcGetCUBINSize(void* program, size_t* size) { *size = 4; return 0; }
int nvrtcGetCUBIN(void* program, char* code) { memcpy(code, "code", 4); return 0; }
const char* nvrtcGetErrorString(int result) { return "an error of the stub"; }
int nvrtcVersion(int* major, int* minor) { *major = 12, *minor = 0; return 0; }
