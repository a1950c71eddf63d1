/* Numbers on the wire, answers and events: what all parts of the board's behaviour share. */
#ifndef WIRE_H
#define WIRE_H

#include <stdint.h>

struct request {
    uint8_t type, sequence, length; /* length of what follows */
    const uint8_t *data;
};

extern uint16_t wire_refused; /* requests */

/* Begin anew: events count from 0, nothing is refused yet. */
void wire_restart(void);

uint32_t read_number(const uint8_t *data, uint8_t length);

/* These return where the next number goes. */
uint8_t *write_u16(uint8_t *to, uint16_t value);
uint8_t *write_u32(uint8_t *to, uint32_t value);

/* Answer with the time of a tick. */
void answer(const struct request *request, uint8_t type, uint32_t tick);

void refuse(const struct request *request, uint8_t reason);

/* Send an event; the first two bytes of the payload are filled in. */
void send_event(uint8_t type, uint8_t *payload, uint8_t length);

#endif
