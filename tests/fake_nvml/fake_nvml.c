/*
 * A libnvidia-ml.so.1 for machines without GPUs: it answers from a text file that describes the host (README.md),
 * so that the real pynvml, and all that is built on it, runs unchanged.
 *
 * Only what is asked for the facts and the metrics of this collection, and by `nvidia-ctk cdi generate` for its
 * specification, is here; for everything else pynvml itself answers "Function Not Found", as it does with an old
 * driver, and nvidia-ctk dies. Constants and structures are those of NVIDIA's nvml.h.
 */
#define _GNU_SOURCE /* dladdr, realpath */
#include <dlfcn.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define API __attribute__((visibility("default")))
#define MAX_GPUS 16
#define MAX_PROCESSES 8
#define MAX_SLICES 7 /* of a GPU in MIG mode */
#define MIB (1024ull * 1024)

typedef enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    TIMEOUT = 10,
    GPU_IS_LOST = 15,
    LIB_RM_VERSION_MISMATCH = 18,
    ARGUMENT_VERSION_MISMATCH = 25,
    UNKNOWN = 999,
} result;

enum { TOPOLOGY_INTERNAL = 0, TOPOLOGY_HOSTBRIDGE = 30, TOPOLOGY_NODE = 40, TOPOLOGY_SYSTEM = 50 };
enum { P2P_CAPS_NVLINK = 2, P2P_OK = 0, P2P_CHIPSET_NOT_SUPPORTED = 1, P2P_NOT_SUPPORTED = 5 };
enum { XID_CRITICAL_ERROR = 8 };
enum { REMOTE_GPU = 0, REMOTE_SWITCH = 2 };

typedef struct {
    unsigned int pid;
    unsigned long long used;
    unsigned int gpu_instance, compute_instance;
} process_info;

typedef struct {
    char bus_id_legacy[16];
    unsigned int domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
} pci_info;

typedef struct {
    unsigned long long total, free, used;
} memory_info;

typedef struct {
    unsigned int version;
    unsigned long long total, reserved, free, used;
} memory_info_v2;

/* Version 3 of the structure has one more field at its end, which this library leaves as it is. */
typedef struct {
    unsigned int version;
    unsigned char cluster_uuid[16];
    result status;
    unsigned int clique, state, health_mask;
} fabric_info;

typedef struct {
    unsigned int index;
    char name[96], uuid[96], compute_capability[8], unsupported[256];
    long long memory_mib, reserved_mib, power_limit_w;
    long long pci_bus, pcie_root, numa;
    long long pcie_generation, pcie_generation_max, pcie_width, pcie_width_max;
    long long mig, ecc, ecc_pending, persistence, lost; /* ecc_pending -1: as ecc */
    long long nvlink_domain, nvlinks, nvlink_switch, fabric_state; /* domain -1: no NVLink */
    long long temperature, power_w, utilization, xid, row_remap_failure; /* what changes while it works */
    long long ecc_corrected, ecc_uncorrected, nvlink_errors, pcie_replays, clock_reasons;
    bool xid_told;
    unsigned int processes, slices;
    process_info process[MAX_PROCESSES];
} gpu;

typedef struct {
    gpu *device;
    unsigned long long kind, data;
    unsigned int gpu_instance, compute_instance;
} event_data;

static struct {
    int users; /* nvmlInit minus nvmlShutdown */
    char driver[80], cuda[16], fault[32];
    unsigned int gpus;
    gpu gpu[MAX_GPUS], slice[MAX_GPUS][MAX_SLICES];
} host;

/* ---- The description file ---- */

static void copy(char *target, size_t size, const char *text) { snprintf(target, size, "%s", text); }

/* "yes" and "no" are 1 and 0, everything else is a decimal number. */
static long long number(const char *text) {
    return strcmp(text, "yes") == 0 ? 1 : strcmp(text, "no") == 0 ? 0 : strtoll(text, NULL, 10);
}

static bool set_host(const char *key, const char *value) {
    if (strcmp(key, "driver") == 0) copy(host.driver, sizeof host.driver, value);
    else if (strcmp(key, "cuda") == 0) copy(host.cuda, sizeof host.cuda, value);
    else if (strcmp(key, "fault") == 0) copy(host.fault, sizeof host.fault, value);
    else if (strcmp(key, "gpus") == 0) host.gpus = (unsigned int)number(value);
    else return false;
    return host.gpus <= MAX_GPUS;
}

static bool add_process(gpu *g, const char *value) {
    unsigned long long used_mib;
    process_info *p = &g->process[g->processes];
    if (g->processes == MAX_PROCESSES || sscanf(value, "%u %llu", &p->pid, &used_mib) != 2) return false;
    p->used = used_mib * MIB;
    p->gpu_instance = p->compute_instance = 0xffffffff; /* not in a MIG slice */
    g->processes++;
    return true;
}

/* A slice is a device of its own: the GPU that it is cut from, with another name and less memory. */
static bool add_slice(gpu *g, const char *value) {
    char profile[16];
    gpu *slice = &host.slice[g->index][g->slices];
    if (g->slices == MAX_SLICES) return false;
    *slice = *g;
    if (sscanf(value, "%15s %lld", profile, &slice->memory_mib) != 2) return false;
    snprintf(slice->name, sizeof slice->name, "%.72s MIG %s", g->name, profile);
    snprintf(slice->uuid, sizeof slice->uuid, "MIG-00000000-0000-0000-%04u-%012u", g->index, g->slices++);
    return true;
}

static bool set_gpu(gpu *g, const char *key, const char *value) {
    const struct { const char *key; long long *field; } numbers[] = {
        {"memory_mib", &g->memory_mib}, {"reserved_mib", &g->reserved_mib}, {"power_limit_w", &g->power_limit_w},
        {"pci_bus", &g->pci_bus}, {"pcie_root", &g->pcie_root}, {"numa", &g->numa},
        {"pcie_generation", &g->pcie_generation}, {"pcie_generation_max", &g->pcie_generation_max},
        {"pcie_width", &g->pcie_width}, {"pcie_width_max", &g->pcie_width_max},
        {"mig", &g->mig}, {"ecc", &g->ecc}, {"ecc_pending", &g->ecc_pending},
        {"persistence", &g->persistence}, {"lost", &g->lost},
        {"nvlink_domain", &g->nvlink_domain}, {"nvlinks", &g->nvlinks}, {"nvlink_switch", &g->nvlink_switch},
        {"fabric_state", &g->fabric_state},
        {"temperature", &g->temperature}, {"power_w", &g->power_w}, {"utilization", &g->utilization},
        {"xid", &g->xid}, {"row_remap_failure", &g->row_remap_failure}, {"clock_reasons", &g->clock_reasons},
        {"ecc_corrected", &g->ecc_corrected}, {"ecc_uncorrected", &g->ecc_uncorrected},
        {"nvlink_errors", &g->nvlink_errors}, {"pcie_replays", &g->pcie_replays},
    };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strcmp(key, numbers[i].key) == 0) {
            *numbers[i].field = number(value);
            return true;
        }
    if (strcmp(key, "name") == 0) copy(g->name, sizeof g->name, value);
    else if (strcmp(key, "uuid") == 0) copy(g->uuid, sizeof g->uuid, value);
    else if (strcmp(key, "compute_capability") == 0) copy(g->compute_capability, sizeof g->compute_capability, value);
    else if (strcmp(key, "unsupported") == 0) copy(g->unsupported, sizeof g->unsupported, value);
    else if (strcmp(key, "process") == 0) return add_process(g, value);
    else if (strcmp(key, "mig_slice") == 0) return add_slice(g, value);
    else return false;
    return true;
}

static char *trim(char *text) {
    text += strspn(text, " \t");
    text[strcspn(text, "#\r\n")] = '\0';
    for (char *end = text + strlen(text); end > text && strchr(" \t", end[-1]); ) *--end = '\0';
    return text;
}

static void defaults(void) {
    memset(&host, 0, sizeof host);
    for (unsigned int i = 0; i < MAX_GPUS; i++) {
        gpu *g = &host.gpu[i];
        g->index = i;
        g->pci_bus = 0x10 + i;
        g->nvlink_domain = g->ecc_pending = -1;
        snprintf(g->uuid, sizeof g->uuid, "GPU-00000000-0000-0000-0000-%012u", i);
    }
}

/* Reads "[host]", "[gpu *]" and "[gpu N]" sections of "key = value" lines; false, with the line on stderr, if it cannot. */
static bool read_description(void) {
    const char *path = getenv("FAKE_NVML_CONFIG");
    if (!path) path = "/etc/fake-nvml.conf";
    FILE *file = fopen(path, "r");
    if (!file) {
        perror(path);
        return false;
    }
    defaults();
    char line[512];
    unsigned int first = 0, last = 0; /* the GPUs of the section: first <= index < last; none in [host] */
    bool ok = true;
    for (int n = 1; ok && fgets(line, sizeof line, file); n++) {
        char *text = trim(line), *equals = strchr(text, '=');
        unsigned int index;
        if (!*text) continue;
        if (strcmp(text, "[host]") == 0) first = last = 0;
        else if (strcmp(text, "[gpu *]") == 0) first = 0, last = MAX_GPUS;
        else if (sscanf(text, "[gpu %u]", &index) == 1 && index < MAX_GPUS) first = index, last = index + 1;
        else if (equals) {
            *equals = '\0';
            char *key = trim(text), *value = trim(equals + 1);
            if (first == last) ok = set_host(key, value);
            for (unsigned int i = first; ok && i < last; i++) ok = set_gpu(&host.gpu[i], key, value);
        } else ok = false;
        if (!ok) fprintf(stderr, "%s:%d: cannot use '%s'\n", path, n, text);
    }
    fclose(file);
    return ok;
}

/* ---- The library as a package ships it ---- */

/* 580.95.05 in libnvidia-ml.so.580.95.05, whatever link it was loaded by; false where the name has no such version. */
static bool packaged_version(char *version, size_t size) {
    const char prefix[] = "libnvidia-ml.so.";
    char path[PATH_MAX];
    Dl_info self;
    if (!dladdr(&host, &self) || !realpath(self.dli_fname, path)) return false;
    const char *name = strrchr(path, '/') + 1;
    if (strncmp(name, prefix, strlen(prefix)) != 0 || !strchr(name + strlen(prefix), '.')) return false;
    copy(version, size, name + strlen(prefix));
    return true;
}

/* A packaged library wants the kernel module of its own version to be loaded. */
static result check_module(const char *version) {
    const char *path = getenv("FAKE_NVML_MODULE_VERSION");
    FILE *file = fopen(path ? path : "/sys/module/nvidia/version", "r");
    char loaded[80] = "";
    if (!file) return DRIVER_NOT_LOADED;
    bool same = fscanf(file, "%79s", loaded) == 1 && strcmp(loaded, version) == 0;
    fclose(file);
    return same ? SUCCESS : LIB_RM_VERSION_MISMATCH;
}

/* ---- What every query starts with ---- */

static bool is_listed(const char *list, const char *word) {
    size_t length = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at += length)
        if ((at == list || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0')) return true;
    return false;
}

/* SUCCESS if the GPU can be asked for this field, which is named as in the description file. */
static result check(const gpu *g, const char *field) {
    if (!host.users) return UNINITIALIZED;
    bool whole = g >= host.gpu && g < host.gpu + host.gpus;
    if (!whole && (g < host.slice[0] || g >= host.slice[MAX_GPUS])) return INVALID_ARGUMENT;
    if (g->lost) return GPU_IS_LOST;
    return is_listed(g->unsupported, field) ? NOT_SUPPORTED : SUCCESS;
}

static result give_text(char *target, unsigned int size, const char *text) {
    if (strlen(text) >= size) return INSUFFICIENT_SIZE;
    memcpy(target, text, strlen(text) + 1);
    return SUCCESS;
}

static result give_uint(const gpu *g, const char *field, long long value, unsigned int *target) {
    result r = check(g, field);
    if (r == SUCCESS) *target = (unsigned int)value;
    return r;
}

static void fill_pci(pci_info *info, unsigned int bus) {
    memset(info, 0, sizeof *info);
    info->bus = bus;
    snprintf(info->bus_id, sizeof info->bus_id, "00000000:%02X:00.0", bus & 0xff);
    snprintf(info->bus_id_legacy, sizeof info->bus_id_legacy, "0000:%02X:00.0", bus & 0xff);
}

/* ---- The library ---- */

API result nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    char version[sizeof host.driver];
    bool packaged = packaged_version(version, sizeof version);
    result r = packaged ? check_module(version) : SUCCESS;
    if (r != SUCCESS) return r;
    if (!host.users && !read_description()) return UNKNOWN;
    if (packaged) copy(host.driver, sizeof host.driver, version);
    if (strcmp(host.fault, "driver_not_loaded") == 0) return DRIVER_NOT_LOADED;
    if (strcmp(host.fault, "version_mismatch") == 0) return LIB_RM_VERSION_MISMATCH;
    host.users++;
    return SUCCESS;
}

API result nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

API result nvmlShutdown(void) {
    if (!host.users) return UNINITIALIZED;
    host.users--;
    return SUCCESS;
}

API const char *nvmlErrorString(result r) {
    switch (r) {
    case SUCCESS: return "The operation was successful";
    case UNINITIALIZED: return "NVML was not first initialized with nvmlInit()";
    case INVALID_ARGUMENT: return "A supplied argument is invalid";
    case NOT_SUPPORTED: return "The requested operation is not available on target device";
    case NOT_FOUND: return "A query to find an object was unsuccessful";
    case INSUFFICIENT_SIZE: return "An input argument is not large enough";
    case DRIVER_NOT_LOADED: return "NVIDIA driver is not loaded";
    case TIMEOUT: return "The operation timed out";
    case GPU_IS_LOST: return "The GPU has fallen off the bus or has otherwise become inaccessible";
    case LIB_RM_VERSION_MISMATCH: return "Driver/library version mismatch";
    case ARGUMENT_VERSION_MISMATCH: return "The provided version is invalid/unsupported";
    case UNKNOWN: break;
    }
    return "An unknown internal driver error occurred";
}

API result nvmlSystemGetDriverVersion(char *version, unsigned int size) {
    return host.users ? give_text(version, size, host.driver) : UNINITIALIZED;
}

API result nvmlSystemGetNVMLVersion(char *version, unsigned int size) {
    if (!host.users) return UNINITIALIZED;
    char text[100];
    snprintf(text, sizeof text, "%.2s.%s", host.cuda, host.driver); /* 13.580.95.05 */
    return give_text(version, size, text);
}

API result nvmlSystemGetCudaDriverVersion_v2(int *version) {
    int major = 0, minor = 0;
    if (!host.users) return UNINITIALIZED;
    if (sscanf(host.cuda, "%d.%d", &major, &minor) != 2) return NOT_SUPPORTED;
    *version = major * 1000 + minor * 10;
    return SUCCESS;
}

API result nvmlSystemGetCudaDriverVersion(int *version) { return nvmlSystemGetCudaDriverVersion_v2(version); }

/* ---- Finding GPUs ---- */

API result nvmlDeviceGetCount_v2(unsigned int *count) {
    *count = host.gpus;
    return host.users ? SUCCESS : UNINITIALIZED;
}

API result nvmlDeviceGetHandleByIndex_v2(unsigned int index, gpu **device) {
    if (host.users && index >= host.gpus) return INVALID_ARGUMENT;
    *device = &host.gpu[index];
    return check(*device, "handle");
}

API result nvmlDeviceGetHandleByUUID(const char *uuid, gpu **device) {
    for (unsigned int i = 0; i < host.gpus; i++)
        if (strcmp(host.gpu[i].uuid, uuid) == 0) return nvmlDeviceGetHandleByIndex_v2(i, device);
    return host.users ? NOT_FOUND : UNINITIALIZED;
}

API result nvmlDeviceGetHandleByPciBusId_v2(const char *bus_id, gpu **device) {
    pci_info info;
    for (unsigned int i = 0; i < host.gpus; i++) {
        fill_pci(&info, (unsigned int)host.gpu[i].pci_bus);
        if (strcmp(info.bus_id, bus_id) == 0 || strcmp(info.bus_id_legacy, bus_id) == 0)
            return nvmlDeviceGetHandleByIndex_v2(i, device);
    }
    return host.users ? NOT_FOUND : UNINITIALIZED;
}

/* ---- One GPU ---- */

API result nvmlDeviceGetIndex(const gpu *g, unsigned int *index) { return give_uint(g, "index", g->index, index); }

/* nvidia-ctk asks for the number in /dev/nvidiaN, and whether a handle is that of a MIG device. */
API result nvmlDeviceGetMinorNumber(const gpu *g, unsigned int *minor) { return give_uint(g, "index", g->index, minor); }

API result nvmlDeviceIsMigDeviceHandle(const gpu *g, unsigned int *is_mig) { return give_uint(g, "mig", 0, is_mig); }

API result nvmlDeviceGetName(const gpu *g, char *name, unsigned int size) {
    result r = check(g, "name");
    return r == SUCCESS ? give_text(name, size, g->name) : r;
}

API result nvmlDeviceGetUUID(const gpu *g, char *uuid, unsigned int size) {
    result r = check(g, "uuid");
    return r == SUCCESS ? give_text(uuid, size, g->uuid) : r;
}

API result nvmlDeviceGetPciInfo_v3(const gpu *g, pci_info *info) {
    result r = check(g, "pci_bus");
    if (r == SUCCESS) fill_pci(info, (unsigned int)g->pci_bus);
    return r;
}

API result nvmlDeviceGetCudaComputeCapability(const gpu *g, int *major, int *minor) {
    result r = check(g, "compute_capability");
    if (r == SUCCESS && sscanf(g->compute_capability, "%d.%d", major, minor) != 2) return NOT_SUPPORTED;
    return r;
}

static unsigned long long used_by_processes(const gpu *g) {
    unsigned long long used = 0;
    for (unsigned int i = 0; i < g->processes; i++) used += g->process[i].used;
    return used;
}

/* Version 1 has no reserved field: there what the driver keeps for itself counts as used. */
API result nvmlDeviceGetMemoryInfo(const gpu *g, memory_info *memory) {
    result r = check(g, "memory_mib");
    if (r != SUCCESS) return r;
    memory->total = (unsigned long long)g->memory_mib * MIB;
    memory->used = (unsigned long long)g->reserved_mib * MIB + used_by_processes(g);
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

API result nvmlDeviceGetMemoryInfo_v2(const gpu *g, memory_info_v2 *memory) {
    result r = check(g, "memory_mib");
    if (r != SUCCESS) return r;
    if (memory->version != (sizeof *memory | 2u << 24)) return ARGUMENT_VERSION_MISMATCH;
    memory->total = (unsigned long long)g->memory_mib * MIB;
    memory->reserved = (unsigned long long)g->reserved_mib * MIB;
    memory->used = used_by_processes(g);
    memory->free = memory->total - memory->reserved - memory->used;
    return SUCCESS;
}

API result nvmlDeviceGetEnforcedPowerLimit(const gpu *g, unsigned int *milliwatts) {
    return give_uint(g, "power_limit_w", g->power_limit_w * 1000, milliwatts);
}

API result nvmlDeviceGetPowerManagementLimit(const gpu *g, unsigned int *milliwatts) {
    return nvmlDeviceGetEnforcedPowerLimit(g, milliwatts);
}

API result nvmlDeviceGetCurrPcieLinkGeneration(const gpu *g, unsigned int *generation) {
    return give_uint(g, "pcie_generation", g->pcie_generation, generation);
}

API result nvmlDeviceGetMaxPcieLinkGeneration(const gpu *g, unsigned int *generation) {
    return give_uint(g, "pcie_generation_max", g->pcie_generation_max, generation);
}

API result nvmlDeviceGetCurrPcieLinkWidth(const gpu *g, unsigned int *width) {
    return give_uint(g, "pcie_width", g->pcie_width, width);
}

API result nvmlDeviceGetMaxPcieLinkWidth(const gpu *g, unsigned int *width) {
    return give_uint(g, "pcie_width_max", g->pcie_width_max, width);
}

API result nvmlDeviceGetMigMode(const gpu *g, unsigned int *current, unsigned int *pending) {
    *pending = (unsigned int)g->mig;
    return give_uint(g, "mig", g->mig, current);
}

API result nvmlDeviceGetMaxMigDeviceCount(const gpu *g, unsigned int *count) {
    return give_uint(g, "mig", MAX_SLICES, count);
}

API result nvmlDeviceGetMigDeviceHandleByIndex(const gpu *g, unsigned int index, gpu **device) {
    result r = check(g, "mig");
    if (r != SUCCESS) return r;
    if (index >= g->slices) return NOT_FOUND;
    *device = &host.slice[g->index][index];
    return SUCCESS;
}

API result nvmlDeviceGetEccMode(const gpu *g, unsigned int *current, unsigned int *pending) {
    *pending = (unsigned int)(g->ecc_pending < 0 ? g->ecc : g->ecc_pending);
    return give_uint(g, "ecc", g->ecc, current);
}

API result nvmlDeviceGetPersistenceMode(const gpu *g, unsigned int *mode) {
    return give_uint(g, "persistence", g->persistence, mode);
}

API result nvmlDeviceGetComputeRunningProcesses_v3(const gpu *g, unsigned int *count, process_info *infos) {
    result r = check(g, "process");
    if (r != SUCCESS) return r;
    unsigned int room = *count;
    *count = g->processes;
    if (room < g->processes) return INSUFFICIENT_SIZE;
    if (g->processes) memcpy(infos, g->process, g->processes * sizeof *infos);
    return SUCCESS;
}

/* ---- What changes while it works ---- */

static result give_large(const gpu *g, const char *field, long long value, unsigned long long *target) {
    result r = check(g, field);
    if (r == SUCCESS) *target = (unsigned long long)value;
    return r;
}

API result nvmlDeviceGetTemperature(const gpu *g, unsigned int sensor, unsigned int *celsius) {
    return sensor ? INVALID_ARGUMENT : give_uint(g, "temperature", g->temperature, celsius);
}

API result nvmlDeviceGetPowerUsage(const gpu *g, unsigned int *milliwatts) {
    return give_uint(g, "power_w", g->power_w * 1000, milliwatts);
}

API result nvmlDeviceGetUtilizationRates(const gpu *g, unsigned int *gpu_and_memory) {
    gpu_and_memory[1] = (unsigned int)g->utilization / 2;
    return give_uint(g, "utilization", g->utilization, gpu_and_memory);
}

API result nvmlDeviceGetCurrentClocksEventReasons(const gpu *g, unsigned long long *bits) {
    return give_large(g, "clock_reasons", g->clock_reasons, bits);
}

/* Since the driver was loaded (0) and since ever (1) are the same here. */
API result nvmlDeviceGetTotalEccErrors(const gpu *g, unsigned int kind, unsigned int since, unsigned long long *count) {
    (void)since;
    if (!g->ecc) return NOT_SUPPORTED;
    return give_large(g, "ecc_errors", kind ? g->ecc_uncorrected : g->ecc_corrected, count);
}

API result nvmlDeviceGetRemappedRows(const gpu *g, unsigned int *corrected, unsigned int *uncorrected,
                                     unsigned int *pending, unsigned int *failed) {
    *corrected = 0;
    *uncorrected = *pending = *failed = (unsigned int)g->row_remap_failure;
    return check(g, "row_remap_failure");
}

API result nvmlDeviceGetPcieReplayCounter(const gpu *g, unsigned int *count) {
    return give_uint(g, "pcie_replays", g->pcie_replays, count);
}

API result nvmlEventSetCreate(void **set) {
    *set = &host;
    return host.users ? SUCCESS : UNINITIALIZED;
}

API result nvmlDeviceRegisterEvents(const gpu *g, unsigned long long kinds, void *set) {
    (void)kinds, (void)set;
    return check(g, "xid");
}

/* Every GPU with an XID error tells it once. */
API result nvmlEventSetWait_v2(void *set, event_data *event, unsigned int timeout_ms) {
    (void)set, (void)timeout_ms;
    for (unsigned int i = 0; i < host.gpus; i++) {
        gpu *g = &host.gpu[i];
        if (!g->xid || g->xid_told) continue;
        g->xid_told = true;
        const event_data answer = {.device = g, .kind = XID_CRITICAL_ERROR, .data = (unsigned long long)g->xid};
        *event = answer;
        return SUCCESS;
    }
    return TIMEOUT;
}

/* ---- Where a GPU sits, and what connects it to others ---- */

/* A bit set of NUMA nodes. */
API result nvmlDeviceGetMemoryAffinity(const gpu *g, unsigned int size, unsigned long *nodes, unsigned int scope) {
    (void)scope;
    result r = check(g, "numa");
    if (r != SUCCESS) return r;
    if (size < 1 || g->numa < 0) return NOT_SUPPORTED;
    memset(nodes, 0, size * sizeof *nodes);
    nodes[0] = 1ul << g->numa;
    return SUCCESS;
}

/* Of the GPU's own memory, where that is a NUMA node: on none of the hosts described here. */
API result nvmlDeviceGetNumaNodeId(const gpu *g, int *node) {
    (void)node;
    result r = check(g, "numa");
    return r == SUCCESS ? NOT_SUPPORTED : r;
}

static bool have_nvlink(const gpu *a, const gpu *b) {
    return a != b && a->nvlink_domain >= 0 && a->nvlink_domain == b->nvlink_domain;
}

API result nvmlDeviceGetTopologyCommonAncestor(const gpu *a, const gpu *b, unsigned int *level) {
    *level = a == b                       ? TOPOLOGY_INTERNAL
             : a->pcie_root == b->pcie_root ? TOPOLOGY_HOSTBRIDGE
             : a->numa == b->numa           ? TOPOLOGY_NODE
                                            : TOPOLOGY_SYSTEM;
    result r = check(a, "pcie_root");
    return r == SUCCESS ? check(b, "pcie_root") : r;
}

API result nvmlDeviceGetP2PStatus(const gpu *a, const gpu *b, unsigned int capability, unsigned int *status) {
    bool linked = have_nvlink(a, b);
    if (capability == P2P_CAPS_NVLINK) *status = linked ? P2P_OK : P2P_NOT_SUPPORTED;
    else *status = linked || a->pcie_root == b->pcie_root ? P2P_OK : P2P_CHIPSET_NOT_SUPPORTED;
    result r = check(a, "p2p");
    return r == SUCCESS ? check(b, "p2p") : r;
}

static result check_link(const gpu *g, unsigned int link) {
    result r = check(g, "nvlinks");
    if (r != SUCCESS) return r;
    if (g->nvlink_domain < 0) return NOT_SUPPORTED;
    return link < g->nvlinks ? SUCCESS : INVALID_ARGUMENT;
}

/* Without switches the links are dealt round to the other GPUs of the domain; NULL when there are none. */
static const gpu *peer(const gpu *g, unsigned int link) {
    const gpu *peers[MAX_GPUS];
    unsigned int count = 0;
    for (unsigned int i = 0; i < host.gpus; i++)
        if (have_nvlink(g, &host.gpu[i])) peers[count++] = &host.gpu[i];
    return count ? peers[link % count] : NULL;
}

API result nvmlDeviceGetNvLinkState(const gpu *g, unsigned int link, unsigned int *active) {
    result r = check_link(g, link);
    if (r == SUCCESS) *active = g->nvlink_switch || peer(g, link);
    return r;
}

API result nvmlDeviceGetNvLinkErrorCounter(const gpu *g, unsigned int link, unsigned int kind, unsigned long long *count) {
    (void)kind;
    result r = check_link(g, link);
    if (r == SUCCESS) *count = (unsigned long long)g->nvlink_errors;
    return r;
}

API result nvmlDeviceGetNvLinkRemoteDeviceType(const gpu *g, unsigned int link, unsigned int *type) {
    result r = check_link(g, link);
    if (r == SUCCESS) *type = g->nvlink_switch ? REMOTE_SWITCH : REMOTE_GPU;
    return r;
}

API result nvmlDeviceGetNvLinkRemotePciInfo_v2(const gpu *g, unsigned int link, pci_info *info) {
    result r = check_link(g, link);
    if (r != SUCCESS) return r;
    const gpu *other = peer(g, link);
    if (g->nvlink_switch) fill_pci(info, 0xe0 + link % 4); /* four NVSwitches, as in a HGX H100 */
    else if (other) fill_pci(info, (unsigned int)other->pci_bus);
    else return NOT_FOUND;
    return SUCCESS;
}

API result nvmlDeviceGetGpuFabricInfoV(const gpu *g, fabric_info *fabric) {
    result r = check(g, "fabric_state");
    if (r != SUCCESS) return r;
    const fabric_info answer = {.version = fabric->version, .state = (unsigned int)g->fabric_state};
    *fabric = answer;
    return SUCCESS;
}
