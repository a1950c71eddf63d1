#include "timeline.h"

#include <stddef.h>

void timeline_remove(struct timeline *timeline, uint8_t item)
{
    for (struct due **link = &timeline->first; *link != NULL; link = &(*link)->next) {
        if ((*link)->item == item) {
            *link = (*link)->next;
            return;
        }
    }
}

void timeline_add(struct timeline *timeline, uint8_t item, uint32_t at)
{
    struct due **link = &timeline->first, *due = &timeline->items[item];
    while (*link != NULL && (int32_t)(at - (*link)->at) >= 0)
        link = &(*link)->next;
    *due = (struct due){*link, at, item};
    *link = due;
}
