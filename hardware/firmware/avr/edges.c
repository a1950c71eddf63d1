/* The clock and the edges.
 *
 * Timer 1 counts CPU cycles and is never stopped; with the overflows it is a 32-bit clock of
 * 62.5 ns. Edges are made by software, but to the cycle: the compare interrupt comes EARLY cycles
 * ahead of a line's end, waits on the timer, and leaves the last step to instructions of known
 * length. Whatever delays the interrupt (other interrupts, the sections with interrupts off, the
 * entry code) is shorter than EARLY, so it does not show in the width. */
#include <avr/interrupt.h>

#include "edges.h"

volatile uint32_t overflows;
struct lines lines;
uint8_t at_level;
uint32_t guard_end, stop_tick;
volatile bool stopped;

/* The earliest item is the guard's, and frames that came since have moved its end. */
static inline bool guard_was_moved(const struct due *due)
{
    return due->item == TIMELINE_GUARD && (int32_t)(guard_end - due->at) > 0;
}

/* Whether an edge is due within EARLY cycles; else the compare register is set for it.
 *
 * The compare interrupt stays on and its flag is never cleared by hand: a match that means nothing
 * (once in 65536 cycles) only leads here, where nothing is due. */
static inline bool is_due(void)
{
    const struct due *due;
    while ((due = lines.timeline.first)) {
        /* Set first and judged after, so that no moment can slip through between the two. */
        OCR1A = (uint16_t)(due->at - EARLY);
        if ((int32_t)(due->at - ticks()) > EARLY)
            return false;
        if (!guard_was_moved(due))
            return true;
        uart_poll();
        timeline_pop(&lines.timeline);
        timeline_add(&lines.timeline, TIMELINE_GUARD, guard_end);
        uart_poll();
    }
    return false;
}

/* Whether another edge follows within EARLY cycles. */
static inline bool is_next_near(uint32_t before)
{
    const struct due *due = lines.timeline.first;
    return due && (int32_t)(due->at - before) < EARLY && !guard_was_moved(due);
}

/* Take the earliest item out; returns the ports as they are from then on. */
static inline struct ports prepare(void)
{
    uint8_t item = lines.timeline.first->item;
    bool follows = lines_take_first(&lines);
    struct ports ports = ports_of(lines.high);
    uart_poll();
    if (follows)
        lines_follow(&lines, item);
    return ports;
}

/* Make the edges that are due within EARLY cycles.
 *
 * While there is time, the ones that follow are prepared before the first of them is made, so that
 * they are on time too. */
void serve_timeline(void)
{
    struct edge_due edges[TOGETHER];
    uint8_t first = 0, count = 0;
    uint32_t last = 0;
    for (;;) {
        attend();
        if (stopped)
            return;
        if (count == 0) {
            if (!is_due())
                return;
            last = lines.timeline.first->at;
            edges[first] = (struct edge_due){(uint16_t)last, prepare()};
            count = 1;
        } else if (count < TOGETHER && (int16_t)(edges[first].at - TCNT1) > PREPARING
                   && is_next_near(last)) {
            if ((int32_t)(lines.timeline.first->at - last) > 0)
                last = lines.timeline.first->at;
            edges[(first + count++) % TOGETHER] = (struct edge_due){(uint16_t)last, prepare()};
        } else {
            write_at(edges[first]);
            first = (first + 1) % TOGETHER;
            count--;
        }
    }
}

ISR(TIMER1_COMPA_vect)
{
    serve_timeline();
    if (changes_yielded) { /* a change since then has left its flag */
        changes_yielded = false;
        PCICR = _BV(PCIE1);
    }
}

ISR(TIMER1_OVF_vect)
{
    overflows++;
}

void stop_lines(void)
{
    PORTD &= ~PORTD_OF_LINES(ALL_LINES);
    PORTB &= ~PORTB_OF_LINES(ALL_LINES);
    TCCR0A = PWM_MODE;
    if (stopped)
        return;
    stopped = true;
    stop_tick = ticks();
    lines_release(&lines);
}

ISR(INT0_vect)
{
    stop_lines();
}

/* ---- what board.h asks for: time ---- */

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

void edges_start(void)
{
    TCCR0A = PWM_MODE;
    TIMSK1 = _BV(TOIE1) | _BV(OCIE1A);
    TCCR1B = _BV(CS10); /* normal mode, one count per cycle */
}
