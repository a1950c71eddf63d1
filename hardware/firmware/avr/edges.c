/* The clock and the edges.
 *
 * Timer 1 counts CPU cycles and is never stopped; with the overflows it is a 32-bit clock of
 * 62.5 ns. Edges are made by software, but to the cycle: the compare interrupt comes EARLY cycles
 * ahead of a line's end, waits on the timer, and leaves the last step to instructions of known
 * length. Whatever delays the interrupt (other interrupts, the sections with interrupts off, the
 * entry code) is shorter than EARLY, so it does not show in the width. */
#include <avr/interrupt.h>
#include <avr/io.h>

#include "../board.h"
#include "../timeline.h"
#include "pins.h"
#include "target.h"

#define EARLY 1200 /* cycles; what can delay the interrupt, and preparing the edges, take less */
#define FINE 120   /* cycles before the edge from which on nothing else is done */
#define TOGETHER 4 /* edges that are prepared at a time */
#define APART 600  /* cycles between edges that need not be prepared together */
#define NEAREST 24 /* cycles before the edge that the fine wait needs at least */

static volatile uint32_t overflows; /* of timer 1, each 65536 cycles */
static struct timeline timeline;    /* touched with interrupts off only */
static uint8_t high;                /* lines; touched with interrupts off only */
static volatile bool guarded;
static uint32_t guard_end; /* may be later than the timeline's entry, which then only leads here */

/* A table, because this chip shifts by one place at a time. */
static const uint8_t bit_of_line[LINES] = {1, 2, 4, 8, 16, 32, 64, 128};

/* ---- the clock; these need interrupts off ---- */

/* Extend a timer reading that was taken a moment ago. */
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

/* ---- edges; these need interrupts off ---- */

/* Raise: read the timer and, 4 cycles later, write both ports. Returns the reading. */
static inline uint16_t edge_now(uint8_t d, uint8_t b)
{
    uint16_t reading;
    __asm__ volatile("lds %A0, %1 \n\t"
                     "lds %B0, %2 \n\t"
                     "out %3, %5  \n\t"
                     "out %4, %6  \n\t"
                     : "=&r"(reading)
                     : "i"(_SFR_MEM_ADDR(TCNT1L)), "i"(_SFR_MEM_ADDR(TCNT1H)),
                       "I"(_SFR_IO_ADDR(PORTD)), "I"(_SFR_IO_ADDR(PORTB)), "r"(d), "r"(b)
                     : "memory");
    return reading;
}

/* Write both ports 4 cycles after the timer shows `at`, which is NEAREST to 255 cycles ahead.
 *
 * With n = at - reading - EDGE_LEAD the write starts this many cycles after the reading: 4 (lds,
 * sub, subi), 3 * (n / 3) + 2 (the loop), 1 (subi), 6 + n % 3 (the tail, where a set bit costs one
 * cycle more): 13 + n. That is 4 after `at` for EDGE_LEAD = 9. */
#define EDGE_LEAD 9
static inline void edge_at(uint8_t at, uint8_t d, uint8_t b)
{
    uint8_t reading;
    __asm__ volatile("lds %1, %2    \n\t"
                     "sub %0, %1    \n\t"
                     "subi %0, %5   \n\t"
                     "1: subi %0, 3 \n\t"
                     "brcc 1b       \n\t"
                     "subi %0, -3   \n\t" /* now n % 3 */
                     "sbrc %0, 0    \n\t"
                     "rjmp .+0      \n\t"
                     "sbrc %0, 1    \n\t"
                     "rjmp .+0      \n\t"
                     "sbrc %0, 1    \n\t"
                     "rjmp .+0      \n\t"
                     "out %3, %6    \n\t"
                     "out %4, %7    \n\t"
                     : "+d"(at), "=&r"(reading)
                     : "i"(_SFR_MEM_ADDR(TCNT1L)), "I"(_SFR_IO_ADDR(PORTD)),
                       "I"(_SFR_IO_ADDR(PORTB)), "M"(EDGE_LEAD), "r"(d), "r"(b)
                     : "memory");
}

struct edge {
    uint16_t at;  /* timer reading */
    uint8_t d, b; /* the ports from then on */
};

/* Write both ports at a time that is near or past. */
static inline void write_at(struct edge edge)
{
    int16_t left;
    while ((left = (int16_t)(edge.at - TCNT1)) > FINE)
        uart_poll();
    if (left >= NEAREST) {
        edge_at((uint8_t)edge.at, edge.d, edge.b);
        return;
    }
    while ((int16_t)(edge.at - TCNT1) > 0)
        ;
    PORTD = edge.d;
    PORTB = edge.b;
}

/* Take the earliest item out and add its effect to the ports as they will be by then. */
static inline struct edge take_first(uint32_t at, uint8_t *d, uint8_t *b)
{
    uint8_t item = timeline_first(&timeline);
    uint8_t lines = bit_of_line[item & (LINES - 1)];
    timeline_pop(&timeline);
    if (item == TIMELINE_GUARD) {
        lines = ALL_LINES;
        timeline.count = 0;
        guarded = false;
    }
    high &= ~lines;
    *d &= ~PORTD_OF_LINES(lines);
    *b &= ~PORTB_OF_LINES(lines);
    return (struct edge){(uint16_t)at, *d, *b};
}

/* The earliest item is the guard's, and frames that came since have moved its end. */
static inline bool guard_was_moved(uint32_t at)
{
    return timeline_first(&timeline) == TIMELINE_GUARD && (int32_t)(guard_end - at) > 0;
}

/* Make the edges that are due within EARLY cycles and set the compare register for the next one.
 *
 * Edges closer together than APART are prepared before the first of them is made, so that the later
 * ones are on time too. The compare interrupt stays on and its flag is never cleared by hand: a
 * match that means nothing (once in 65536 cycles) only leads here, where nothing is due. */
static void serve_timeline(void)
{
    while (timeline.count) {
        uart_poll();
        uint32_t at = timeline.at[timeline_first(&timeline)];
        /* Set first and judged after, so that no moment can slip through between the two. */
        OCR1A = (uint16_t)(at - EARLY);
        int32_t left = (int32_t)(at - ticks());
        if (left > EARLY)
            return;
        if (guard_was_moved(at)) {
            timeline_set(&timeline, TIMELINE_GUARD, guard_end);
            continue;
        }
        if (left < 0)
            at -= (uint32_t)left; /* overdue: now */
        struct edge edges[TOGETHER];
        uint8_t count = 0, d = PORTD, b = PORTB;
        uint32_t before;
        do {
            uart_poll();
            edges[count++] = take_first(at, &d, &b);
            if (!timeline.count)
                break;
            before = at;
            at = timeline.at[timeline_first(&timeline)];
        } while (count < TOGETHER && at - before < APART && !guard_was_moved(at));
        for (uint8_t i = 0; i < count; i++)
            write_at(edges[i]);
    }
    uart_poll();
}

ISR(TIMER1_COMPA_vect)
{
    serve_timeline();
}

ISR(TIMER1_OVF_vect)
{
    overflows++;
}

/* ---- what board.h asks for ---- */

uint32_t port_now(void)
{
    uint8_t sreg = SREG;
    cli();
    uint32_t now = ticks();
    SREG = sreg;
    return now;
}

/* 2^32 ticks are 2^28 us; the upper 4 bits come from the overflows, as they were at that tick. */
uint32_t port_us(uint32_t tick)
{
    cli();
    uint32_t counted = overflows;
    sei();
    counted -= (uint32_t)(int16_t)((uint16_t)counted - (uint16_t)(tick >> 16));
    return (uint32_t)((uint8_t)(counted >> 16) << 4 & 0xF0) << 24 | tick >> 4;
}

/* Nothing else needs attention before a short pulse that begins now has ended. */
static inline bool undisturbed(uint16_t width)
{
    if (!timeline.count)
        return true;
    uint32_t next = timeline.at[timeline_first(&timeline)];
    return (int32_t)(next - ticks()) > (int32_t)(width + EARLY);
}

/* A pulse too short for the timeline, kept by waiting. */
static inline uint32_t pulse_now(uint8_t lines, uint16_t width)
{
    uint8_t d = PORTD, b = PORTB;
    uint16_t reading = edge_now(d | PORTD_OF_LINES(lines), b | PORTB_OF_LINES(lines));
    write_at((struct edge){reading + width, d, b});
    uart_poll();
    return extend_reading(reading);
}

bool port_raise(uint8_t line, uint32_t width, uint32_t *rise)
{
    uint8_t lines = bit_of_line[line];
    bool brief = width <= EARLY;
    cli();
    while (brief && !undisturbed((uint16_t)width)) {
        sei(); /* let the other edge be made first */
        __asm__ volatile("nop\n\tnop\n\tnop\n\tnop");
        cli();
    }
    bool allowed = guarded;
    if (allowed && brief) {
        *rise = pulse_now(lines, (uint16_t)width);
    } else if (allowed) {
        uint16_t reading = edge_now(PORTD | PORTD_OF_LINES(lines), PORTB | PORTB_OF_LINES(lines));
        high |= lines;
        *rise = extend_reading(reading);
        timeline_add(&timeline, line, *rise + width);
        uart_poll();
        serve_timeline();
    }
    sei();
    return allowed;
}

bool port_hold(uint8_t line, uint32_t end)
{
    cli();
    bool held = high & bit_of_line[line];
    if (held) {
        timeline_set(&timeline, line, end);
        serve_timeline();
    }
    sei();
    return held;
}

uint8_t port_drop(uint8_t lines, uint32_t *tick)
{
    cli();
    uint8_t moved = high & lines;
    *tick = extend_reading(
        edge_now(PORTD & ~PORTD_OF_LINES(lines), PORTB & ~PORTB_OF_LINES(lines)));
    high &= ~lines;
    sei();
    /* One at a time, to keep interrupts off for a short while only. An end that comes between
     * drops a line that is low: no harm. */
    for (uint8_t line = 0; line < LINES; line++) {
        if (moved & bit_of_line[line]) {
            cli();
            timeline_remove(&timeline, line);
            sei();
        }
    }
    return moved;
}

uint8_t port_high(void)
{
    return *(volatile uint8_t *)&high; /* an interrupt may have changed it */
}

uint8_t port_levels(void)
{
    return LINES_OF_PORTS(PIND, PINB);
}

void port_guard_start(uint32_t end)
{
    cli();
    guarded = true;
    guard_end = end;
    timeline_set(&timeline, TIMELINE_GUARD, end);
    serve_timeline();
    sei();
}

/* Every frame does this, so it is quick: the entry in the timeline is moved when its time comes. */
bool port_guard_move(uint32_t end)
{
    cli();
    bool runs = guarded;
    if (runs)
        guard_end = end;
    sei();
    return runs;
}

void port_guard_stop(void)
{
    cli();
    guarded = false;
    timeline_remove(&timeline, TIMELINE_GUARD);
    sei();
}

bool port_guard_runs(void)
{
    return guarded;
}

void port_show_armed(bool armed)
{
    cli();
    if (armed)
        PORTB |= _BV(ARMED_BIT);
    else
        PORTB &= ~_BV(ARMED_BIT);
    sei();
}

void edges_start(void)
{
    TIMSK1 = _BV(TOIE1) | _BV(OCIE1A);
    TCCR1B = _BV(CS10); /* normal mode, one count per cycle */
}
