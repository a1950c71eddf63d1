/* What the parts of the ATmega328P target know of each other. */
#ifndef TARGET_H
#define TARGET_H

#include <avr/io.h>
#include <stdbool.h>
#include <stdint.h>

#include "pins.h"

/* ---- edges.c ---- */

extern volatile uint32_t overflows; /* of timer 1, each 65536 cycles */

/* Start the clock. */
void edges_start(void);

/* All lines low; called as soon as the stop input says stop, interrupts off. */
void stop_lines(void);

/* Let timer 0 rest while no line is at a level. */
void levels_tick(void);

/* The low byte of the overflows. */
static inline uint8_t turn_of_timer(void)
{
    return *(volatile uint8_t *)&overflows;
}

/* Extend a reading of timer 1 that was taken a moment ago; needs interrupts off. */
static inline uint32_t extend_reading(uint16_t reading)
{
    uint16_t above = (uint16_t)overflows;
    if (TIFR1 & _BV(TOV1) && reading < 0x8000)
        above++;
    return (uint32_t)above << 16 | reading;
}

static inline uint32_t ticks(void)
{
    return extend_reading(TCNT1);
}

/* ---- main.c ---- */

/* Take what the serial port has received. For sections with interrupts off, where nobody else
 * does: the receiver holds only two bytes, 20 us. */
void uart_poll(void);

/* ---- inputs.c ---- */

/* Note that watched pins of port C have changed; interrupts off. */
void note_changes(uint8_t changed);

extern bool changes_yielded; /* their interrupt was switched off to let edges be made */

extern uint8_t seen, watched; /* levels of port C as last noted; its pins that are looked at */

extern uint8_t stop_mask, stop_well; /* of port D: the pin, and its level when all is well */

static inline bool stop_is_said(void)
{
    return (PIND ^ stop_well) & stop_mask;
}

static inline void changes_poll(void)
{
    uint8_t changed = (PINC ^ seen) & watched;
    if (changed)
        note_changes(changed);
}

/* What must not wait for the end of a section with interrupts off. */
static inline void attend(void)
{
    uart_poll();
    changes_poll();
    if (stop_is_said())
        stop_lines();
}

#endif
