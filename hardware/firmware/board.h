/* The board's behaviour, without any hardware: framing, limits, arming, watchdog, answers.
 *
 * A target (avr/, or host/ for tests) provides the port_ functions and calls the board_ functions
 * from one context. The target alone times edges, so that a line drops on time whatever the rest
 * of the firmware is doing. */
#ifndef BOARD_H
#define BOARD_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol.h"

#define ALL_LINES 0xFF

/* A table, because a small chip shifts by one place at a time. */
static const uint8_t bit_of_line[LINES] = {1, 2, 4, 8, 16, 32, 64, 128};

/* Called once after reset, with one of RESET_*, when all lines are low. */
void board_start(uint8_t reset_cause);

/* Called with every byte received, in order. */
void board_take(uint8_t byte);

/* Called whenever the target is awake, and during what takes long: reports what happened without a
 * request. */
void board_poll(void);

/* Called every few milliseconds: what has time. */
void board_tick(void);

/* Counts bytes lost or damaged on the wire, and edges of inputs that were lost; the target adds to
 * them, also in interrupts. */
extern volatile uint16_t board_wire_errors, board_edges_lost;

/* ---- what the target provides; ticks are of its free-running 32-bit clock ---- */

#define PORT_TICKS_PER_US 16ul

extern const char port_name[]; /* the firmware's name and version, at most 24 characters */

/* The time now, and a tick within 2 minutes of now as time of the protocol. */
uint32_t port_now(void);
uint32_t port_us(uint32_t tick);

/* ---- lines ---- */

/* Raise a low line and drop it exactly `width` ticks later; the edge's tick goes to `rise`. With a
 * duty, not 0, it switches instead of being high. Refuses (false) while the guard is not running:
 * checked in the same instant, so that a line cannot rise behind the watchdog's back. */
bool port_raise(uint8_t line, uint8_t duty, uint32_t width, uint32_t *rise);

/* Move the end of a line that is on and set its duty (0 = high); false if it is low by now. */
bool port_hold(uint8_t line, uint8_t duty, uint32_t end);

/* `count` pulses of `width`, with `gap` between them, the first after `delay`; ticks. */
struct train {
    uint32_t delay, width, gap;
    uint16_t count;
};

/* Begin a train on a low line; the first edge's tick goes to `rise`. Refuses as port_raise does. */
bool port_train(uint8_t line, const struct train *train, uint32_t *rise);

/* Drop lines now, forget their ends and trains. Returns those of them that were on or had a train;
 * `tick` gets the time. */
uint8_t port_drop(uint8_t lines, uint32_t *tick);

/* Lines that are on, and those that have a train, as far as the firmware knows; and lines as their
 * pins really read. */
uint8_t port_high(void);
uint8_t port_training(void);
uint8_t port_levels(void);

/* ---- the guard: drops all lines at tick `end`, then no longer runs ---- */

/* False, and it does not run, while the stop input says stop. */
bool port_guard_start(uint32_t end);
bool port_guard_move(uint32_t end); /* false if it is not running (any more) */
void port_guard_stop(void);
bool port_guard_runs(void);

/* ---- inputs ---- */

/* What the stop input means, one of STOP_MODE_*; the target drops all lines and ends the guard by
 * itself as soon as it says stop. */
void port_set_stop(uint8_t mode);
uint8_t port_stop_state(void); /* one of STOP_STATE_* */

/* Whether it was the stop input that ended the guard, and when. */
bool port_was_stopped(uint32_t *tick);

/* Look for edges of an input, one of INPUT_*. */
void port_set_input(uint8_t input, uint8_t mode, bool pull_up);
uint8_t port_inputs(void); /* their levels */

struct edge {
    uint32_t tick;
    uint8_t input, level; /* after it */
};

/* Take the next edge that was seen; false if there is none. */
bool port_take_edge(struct edge *edge);

/* ---- the rest ---- */

/* Queue one byte for the host; waits for room, loses nothing. */
void port_put(uint8_t byte);

/* Whether so many bytes can be queued without waiting. */
bool port_has_room(uint8_t bytes);

/* Show whether the board is armed. */
void port_show_armed(bool armed);

struct health {
    uint16_t checksum, built_checksum; /* of the program memory; found, and as it was built */
    uint16_t free_stack;               /* bytes that were never used */
    bool clock_runs;
};

void port_examine(struct health *health);

#endif
