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

/* Called once after reset, with one of RESET_*, when all lines are low. */
void board_start(uint8_t reset_cause);

/* Called with every byte received, in order. */
void board_take(uint8_t byte);

/* Called whenever the target is awake: reports what happened without a request. */
void board_poll(void);

/* Counts bytes lost or damaged on the wire; the target adds to it, also in interrupts. */
extern volatile uint16_t board_wire_errors;

/* ---- what the target provides; ticks are of its free-running 32-bit clock ---- */

#define PORT_TICKS_PER_US 16ul

extern const char port_name[]; /* the firmware's name and version, at most 24 characters */

/* The time now, and a recent tick (not older than 2 minutes) as time of the protocol. */
uint32_t port_now(void);
uint32_t port_us(uint32_t tick);

/* Raise a low line and drop it exactly `width` ticks later; the edge's tick goes to `rise`.
 * Refuses (false) while the guard is not running: checked in the same instant, so that a line
 * cannot rise behind the watchdog's back. */
bool port_raise(uint8_t line, uint32_t width, uint32_t *rise);

/* Move the end of a line that is high; false if it is low by now. */
bool port_hold(uint8_t line, uint32_t end);

/* Drop lines now, forget their ends. Returns those of them that were high; `tick` gets the time. */
uint8_t port_drop(uint8_t lines, uint32_t *tick);

/* Lines that are high as far as the firmware knows, and as the pins really read. */
uint8_t port_high(void);
uint8_t port_levels(void);

/* The guard drops all lines at tick `end`, then no longer runs. */
void port_guard_start(uint32_t end);
bool port_guard_move(uint32_t end); /* false if it is not running (any more) */
void port_guard_stop(void);
bool port_guard_runs(void);

/* Queue one byte for the host; waits for room, loses nothing. */
void port_put(uint8_t byte);

/* Show whether the board is armed. */
void port_show_armed(bool armed);

#endif
