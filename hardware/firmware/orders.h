/* Orders to lines. */
#ifndef ORDERS_H
#define ORDERS_H

#include <stdbool.h>

#include "wire.h"

void orders_restart(void);

bool is_order(uint8_t type);

/* Carry an order out, or refuse it. */
void order(const struct request *request, bool armed);

#endif
