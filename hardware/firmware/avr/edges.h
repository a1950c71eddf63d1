/* Making edges, to the cycle; all of it with interrupts off. */
#ifndef EDGES_H
#define EDGES_H

#include <avr/io.h>

#include "../lines.h"
#include "target.h"

#define EARLY 1600 /* cycles; what can delay the interrupt, and preparing the edges, take less */
#define FINE 120   /* cycles before the edge from which on nothing else is done */
#define TOGETHER 4 /* edges that are prepared at a time; a power of 2 */
#define PREPARING 420 /* cycles that this takes for one of them, at most */
#define NEAREST 24 /* cycles before the edge that the fine wait needs at least */

/* Touched with interrupts off only. */
extern struct lines lines;
extern uint8_t at_level;      /* lines that switch while they are on */
extern uint32_t guard_end;    /* may be later than the timeline's entry for it */
extern volatile bool stopped; /* by the stop input, since the guard was started */
extern uint32_t stop_tick;

/* Make the edges that are due within EARLY cycles, and see to it that the next ones will be made. */
void serve_timeline(void);

/* What makes an edge: both ports, and which lines timer 0 drives. */
struct ports {
    uint8_t d, b, pwm;
};

static inline struct ports ports_of(uint8_t high)
{
    uint8_t switching = high & at_level;
    high &= ~switching;
    return (struct ports){(PORTD & ~PORTD_OF_LINES(ALL_LINES)) | PORTD_OF_LINES(high),
                          (PORTB & ~PORTB_OF_LINES(ALL_LINES)) | PORTB_OF_LINES(high),
                          PWM_MODE | PWM_OF_LINES(switching)};
}

static inline void write_ports(struct ports ports)
{
    PORTD = ports.d;
    PORTB = ports.b;
    TCCR0A = ports.pwm;
}

/* Read the timer and, 4 cycles later, write the ports. Returns the reading. */
static inline uint16_t edge_now(struct ports ports)
{
    uint16_t reading;
    __asm__ volatile("lds %A0, %1 \n\t"
                     "lds %B0, %2 \n\t"
                     "out %3, %6  \n\t"
                     "out %4, %7  \n\t"
                     "out %5, %8  \n\t"
                     : "=&r"(reading)
                     : "i"(_SFR_MEM_ADDR(TCNT1L)), "i"(_SFR_MEM_ADDR(TCNT1H)),
                       "I"(_SFR_IO_ADDR(PORTD)), "I"(_SFR_IO_ADDR(PORTB)),
                       "I"(_SFR_IO_ADDR(TCCR0A)), "r"(ports.d), "r"(ports.b), "r"(ports.pwm)
                     : "memory");
    return reading;
}

/* Write the ports 4 cycles after the timer shows `at`, which is NEAREST to 255 cycles ahead.
 *
 * With n = at - reading - EDGE_LEAD the write starts this many cycles after the reading: 4 (lds,
 * sub, subi), 3 * (n / 3) + 2 (the loop), 1 (subi), 6 + n % 3 (the tail, where a set bit costs one
 * cycle more): 13 + n. That is 4 after `at` for EDGE_LEAD = 9. */
#define EDGE_LEAD 9
static inline void edge_at(uint8_t at, struct ports ports)
{
    uint8_t reading;
    __asm__ volatile("lds %1, %2    \n\t"
                     "sub %0, %1    \n\t"
                     "subi %0, %6   \n\t"
                     "1: subi %0, 3 \n\t"
                     "brcc 1b       \n\t"
                     "subi %0, -3   \n\t" /* now n % 3 */
                     "sbrc %0, 0    \n\t"
                     "rjmp .+0      \n\t"
                     "sbrc %0, 1    \n\t"
                     "rjmp .+0      \n\t"
                     "sbrc %0, 1    \n\t"
                     "rjmp .+0      \n\t"
                     "out %3, %7    \n\t"
                     "out %4, %8    \n\t"
                     "out %5, %9    \n\t"
                     : "+d"(at), "=&r"(reading)
                     : "i"(_SFR_MEM_ADDR(TCNT1L)), "I"(_SFR_IO_ADDR(PORTD)),
                       "I"(_SFR_IO_ADDR(PORTB)), "I"(_SFR_IO_ADDR(TCCR0A)), "M"(EDGE_LEAD),
                       "r"(ports.d), "r"(ports.b), "r"(ports.pwm)
                     : "memory");
}

struct edge_due {
    uint16_t at; /* timer reading */
    struct ports ports;
};

/* Write the ports at a time that is near or past, unless the stop input comes first. */
static inline void write_at(struct edge_due edge)
{
    int16_t left;
    while ((left = (int16_t)(edge.at - TCNT1)) > FINE) {
        if (left > 2 * FINE)
            attend();
        else
            uart_poll(); /* there is no time for more */
        if (stopped)
            return;
    }
    if (left >= NEAREST) {
        edge_at((uint8_t)edge.at, edge.ports);
        return;
    }
    while ((int16_t)(edge.at - TCNT1) > 0)
        ;
    write_ports(edge.ports);
}

#endif
