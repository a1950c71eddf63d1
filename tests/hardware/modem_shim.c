/* For LD_PRELOAD: gives pseudo-terminals the modem lines that they lack.
 *
 * An ioctl on DTR and RTS that the kernel refuses on a terminal (ENOTTY) is carried out on the mask
 * at the start of the file $MODEM_SHIM instead, shared by all processes, and the levels are appended
 * to the file $MODEM_SHIM.log, "dtr 1" and "rts 0". Everything else is left to the kernel. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { OUTPUTS = TIOCM_DTR | TIOCM_RTS };

static _Atomic int *lines(void)
{
    static _Atomic int *mapped;
    if (!mapped) {
        const char *path = getenv("MODEM_SHIM");
        int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
        if (fd < 0 || ftruncate(fd, 4096))
            return NULL;
        void *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        close(fd);
        mapped = memory == MAP_FAILED ? NULL : memory;
    }
    return mapped;
}

static void tell(int levels)
{
    char path[4096], text[32];
    snprintf(path, sizeof path, "%s.log", getenv("MODEM_SHIM"));
    int size = snprintf(text, sizeof text, "dtr %d\nrts %d\n", !!(levels & TIOCM_DTR),
                        !!(levels & TIOCM_RTS));
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, (size_t)size) != size)
        abort(); /* a test must not go on with a log that has a hole */
    close(fd);
}

int ioctl(int fd, unsigned long request, ...)
{
    static int (*kernel)(int, unsigned long, void *);
    if (!kernel)
        kernel = (int (*)(int, unsigned long, void *))dlsym(RTLD_NEXT, "ioctl");
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    int result = kernel(fd, request, argument);
    if (result == 0 || errno != ENOTTY || !isatty(fd) || !lines())
        return result;
    int *mask = argument, levels;
    switch (request) {
    case TIOCMGET:
        *mask = atomic_load(lines());
        return 0;
    case TIOCMBIS:
        levels = atomic_fetch_or(lines(), *mask & OUTPUTS) | (*mask & OUTPUTS);
        break;
    case TIOCMBIC:
        levels = atomic_fetch_and(lines(), ~(*mask & OUTPUTS)) & ~(*mask & OUTPUTS);
        break;
    case TIOCMSET:
        levels = *mask & OUTPUTS;
        atomic_store(lines(), levels);
        break;
    default:
        errno = ENOTTY;
        return -1;
    }
    tell(levels);
    return 0;
}
