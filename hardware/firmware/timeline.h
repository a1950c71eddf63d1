/* What is due when: the next edge of each line, and the end of the watchdog's patience.
 *
 * A list in order of time. Times are ticks of a free-running 32-bit clock; they compare rightly as
 * long as everything lies within half its range. Not safe against interrupts: the target switches
 * them off around it. */
#ifndef TIMELINE_H
#define TIMELINE_H

#include <stdint.h>

#include "protocol.h"

#define TIMELINE_GUARD LINES /* the watchdog; 0..LINES-1 are the lines */
#define TIMELINE_ITEMS (LINES + 1)

struct due {
    struct due *next;
    uint32_t at;
    uint8_t item;
};

struct timeline {
    struct due *first; /* the earliest */
    struct due items[TIMELINE_ITEMS];
};

/* Enter an item that is not in. */
void timeline_add(struct timeline *timeline, uint8_t item, uint32_t at);

/* Take an item out; nothing happens if it is not in. */
void timeline_remove(struct timeline *timeline, uint8_t item);

/* Move an item, or enter it. */
static inline void timeline_set(struct timeline *timeline, uint8_t item, uint32_t at)
{
    timeline_remove(timeline, item);
    timeline_add(timeline, item, at);
}

/* Take the earliest item out. */
static inline void timeline_pop(struct timeline *timeline)
{
    timeline->first = timeline->first->next;
}

#endif
