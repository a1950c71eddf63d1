/* The chip's memories. */
#ifndef HEALTH_H
#define HEALTH_H

#include <stdint.h>

#define UNTOUCHED 0xC5

extern uint8_t _end, __stack; /* the linker's: the end of the variables, the last byte of memory */

/* Mark the memory that will be stack; before anything is on it. */
static inline __attribute__((always_inline)) void stack_mark(void)
{
    for (uint8_t *byte = &_end; byte <= &__stack; byte++)
        *byte = UNTOUCHED;
}

#endif
