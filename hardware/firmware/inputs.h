/* Edges of the inputs: which are reported, and a queue between them and the wire. */
#ifndef INPUTS_H
#define INPUTS_H

#include "wire.h"

void inputs_restart(void);

/* Report what was seen, as far as there is room on the wire. */
void inputs_poll(void);

/* Keep track of time; call it every few milliseconds. */
void inputs_tick(void);

/* Obey or refuse REQUEST_INPUT. */
void set_input(const struct request *request);

#endif
