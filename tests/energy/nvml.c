// A small part of NVIDIA's management library, with one GPU that uses 200 W: what nvidia-ml-py itself calls.
#include <string.h>
#include <time.h>

typedef struct { unsigned int fieldId, scopeId; long long timestamp, latencyUsec; unsigned int valueType, nvmlReturn;
                 union { double d; int i; unsigned int ui; unsigned long ul; unsigned long long ull; } value; } field_t;

static int opened;
static char device[1];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

int nvmlInitWithFlags(unsigned int flags) { (void)flags; opened++; return 0; }
int nvmlInit_v2(void) { opened++; return 0; }
int nvmlShutdown(void) { opened--; return 0; }
const char *nvmlErrorString(int code) { return code == 3 ? "Not Supported" : "Error"; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 1; return opened > 0 ? 0 : 1; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle) { *handle = device; return index ? 2 : 0; }
int nvmlDeviceGetName(void *handle, char *name, unsigned int length) {
    (void)handle;
    strncpy(name, "NVIDIA Test 200", length);
    return 0;
}
int nvmlDeviceGetMigMode(void *handle, unsigned int *now_, unsigned int *later) {
    (void)handle; (void)now_; (void)later;
    return 3;
}
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *millijoules) {
    (void)handle;
    *millijoules = (unsigned long long)((long long)(now() * 10) / 10.0 * 200e3);  // new ten times a second
    return 0;
}
int nvmlDeviceGetPowerUsage(void *handle, unsigned int *milliwatts) { (void)handle; *milliwatts = 200000; return 0; }
int nvmlDeviceGetEnforcedPowerLimit(void *handle, unsigned int *milliwatts) {
    (void)handle;
    *milliwatts = 450000;
    return 0;
}
int nvmlDeviceGetFieldValues(void *handle, int count, field_t *values) {
    (void)handle;
    for (int i = 0; i < count; i++) {
        values[i].nvmlReturn = values[i].fieldId == 186 ? 0 : 3;
        values[i].valueType = 1;
        values[i].value.ui = 201000;
    }
    return 0;
}
