/* What a line may do: its longest on-time, its refractory time and its dose; and what it has done.
 *
 * Times are microseconds of the protocol. An order that is carried out is a use of its line: it is
 * charged as a whole until it ends, then for what it was, dated at its end. Charges are kept in
 * quarters of the window and given back a quarter at a time. So in any window the on-time cannot
 * exceed the dose: when the last order in it was accepted, every order that reaches into it was
 * charged in full. */
#ifndef LIMITS_H
#define LIMITS_H

#include <stdbool.h>
#include <stdint.h>

struct limit {
    uint32_t longest_us;    /* 0 = unusable */
    uint32_t refractory_us;
    uint32_t dose_us;       /* 0 = no cap */
    uint32_t window_us;     /* 0 = since the limit was set */
};

/* Forget everything: no line is usable. */
void limits_restart(void);

/* Keep the books of one line after the other; call it every few milliseconds. */
void limits_tick(void);

/* Returns a REASON_, or 0. */
uint8_t limit_set(uint8_t line, const struct limit *limit);

uint32_t limit_longest_us(uint8_t line);
bool limits_usable(void); /* any line */

/* Lines that have a refractory time or a dose; no books are kept of the others. */
extern uint8_t limits_on_time;

/* Why one of these lines may not go on `delay_us` from now, for `on_us` altogether: a REASON_, or
 * 0. */
uint8_t limit_refusal(uint8_t line, uint32_t delay_us, uint32_t on_us);

/* Why it may not be low for only `gap_us` between two on-times: a REASON_, or 0. */
uint8_t limit_gap_refusal(uint8_t line, uint32_t gap_us);

/* How long the line may be on altogether in the use that runs. */
uint32_t limit_allowance_us(uint8_t line);

/* The line went on, or will, at a tick. */
void limit_begin(uint8_t line, uint32_t tick, uint32_t width_us, uint32_t period_us,
                 uint16_t count);

/* The end of the use that runs has been moved. */
void limit_move(uint8_t line, uint32_t width_us);

/* Lines were dropped at a tick, those of their uses that ran have ended then. */
void limits_drop(uint8_t lines, uint32_t tick);

#endif
