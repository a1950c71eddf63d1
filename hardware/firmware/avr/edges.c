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
#include "../lines.h"
#include "pins.h"
#include "target.h"

#define EARLY 1600 /* cycles; what can delay the interrupt, and preparing the edges, take less */
#define FINE 120   /* cycles before the edge from which on nothing else is done */
#define TOGETHER 4 /* edges that are prepared at a time; a power of 2 */
#define PREPARING 420 /* cycles that this takes for one of them, at most */
#define NEAREST 24 /* cycles before the edge that the fine wait needs at least */

volatile uint32_t overflows;
static struct lines lines;     /* touched with interrupts off only */
static uint8_t at_level;       /* lines that switch while they are on; the same */
static uint32_t guard_end;     /* may be later than the timeline's entry, which only leads here then */
static volatile bool stopped;  /* by the stop input, since the guard was started */
static uint32_t stop_tick;

/* ---- edges; these need interrupts off ---- */

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
static void serve_timeline(void)
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

/* ---- lines ---- */

/* The duty is taken over at the end of timer 0's period. One that rested begins a period at once. */
static void set_duty(uint8_t line, uint8_t duty)
{
    if (!duty)
        return;
    if (line == 1)
        OCR0B = duty;
    else
        OCR0A = duty;
    if (!TCCR0B) {
        TCNT0 = 0xFF;
        TCCR0B = _BV(CS01); /* a period is 8 * 256 cycles */
    }
}

void levels_tick(void)
{
    cli();
    if (!LINES_OF_PWM(TCCR0A))
        TCCR0B = 0;
    sei();
}

/* Nothing else needs attention before a short pulse that begins now has ended. */
static inline bool undisturbed(uint16_t width)
{
    if (!lines.timeline.first)
        return true;
    uint32_t next = lines.timeline.first->at;
    return (int32_t)(next - ticks()) > (int32_t)(width + EARLY);
}

/* A pulse too short for the timeline, kept by waiting. */
static inline uint32_t pulse_now(uint8_t bit, uint16_t width)
{
    struct ports low = ports_of(lines.high);
    uint16_t reading = edge_now(ports_of(lines.high | bit));
    write_at((struct edge_due){reading + width, low});
    attend();
    return extend_reading(reading);
}

static inline void set_at_level(uint8_t bit, uint8_t duty)
{
    if (duty)
        at_level |= bit;
    else
        at_level &= ~bit;
}

/* Raise a line and enter its end. */
static inline uint32_t raise_for(uint8_t line, uint32_t width)
{
    lines.high |= bit_of_line[line];
    uint32_t rise = extend_reading(edge_now(ports_of(lines.high)));
    timeline_add(&lines.timeline, line, rise + width);
    attend();
    return rise;
}

bool port_raise(uint8_t line, uint8_t duty, uint32_t width, uint32_t *rise)
{
    uint8_t bit = bit_of_line[line];
    bool brief = width <= EARLY;
    set_duty(line, duty);
    cli();
    while (brief && !undisturbed((uint16_t)width)) {
        sei(); /* let the other edge be made first */
        __asm__ volatile("nop\n\tnop\n\tnop\n\tnop");
        cli();
    }
    bool allowed = lines.guarded;
    if (allowed) {
        set_at_level(bit, duty);
        if (brief) {
            *rise = pulse_now(bit, (uint16_t)width);
        } else {
            *rise = raise_for(line, width);
            serve_timeline();
        }
    }
    sei();
    return allowed;
}

bool port_hold(uint8_t line, uint8_t duty, uint32_t end)
{
    set_duty(line, duty);
    cli();
    bool held = lines.high & bit_of_line[line];
    if (held) {
        set_at_level(bit_of_line[line], duty);
        struct ports ports = ports_of(lines.high);
        TCCR0A |= ports.pwm; /* first, or the line would be low between the two */
        write_ports(ports);
        if (lines.timeline.items[line].at != end)
            timeline_set(&lines.timeline, line, end);
        serve_timeline();
    }
    sei();
    return held;
}

/* A first pulse that is too short for the timeline begins when it can be prepared. */
bool port_train(uint8_t line, const struct train *train, uint32_t *rise)
{
    lines.trains[line] = *train; /* not in use: the line has none */
    cli();
    bool allowed = lines.guarded;
    if (allowed) {
        at_level &= ~bit_of_line[line];
        lines.training |= bit_of_line[line];
        if (train->delay || train->width <= EARLY) {
            *rise = ticks() + (train->delay ? train->delay : EARLY + PREPARING);
            uart_poll();
            timeline_add(&lines.timeline, line, *rise);
        } else {
            *rise = raise_for(line, train->width);
        }
        serve_timeline();
    }
    sei();
    return allowed;
}

uint8_t port_drop(uint8_t dropped, uint32_t *tick)
{
    cli();
    uint8_t ended = (lines.high | lines.training) & dropped;
    lines.high &= ~dropped;
    lines.training &= ~dropped;
    *tick = extend_reading(edge_now(ports_of(lines.high)));
    sei();
    /* One at a time, to keep interrupts off for a short while only. What comes between finds a line
     * that is low and has no train: no harm. */
    for (uint8_t line = 0; line < LINES; line++) {
        if (ended & bit_of_line[line]) {
            cli();
            timeline_remove(&lines.timeline, line);
            sei();
        }
    }
    return ended;
}

uint8_t port_high(void)
{
    return *(volatile uint8_t *)&lines.high; /* an interrupt may have changed it */
}

uint8_t port_training(void)
{
    return *(volatile uint8_t *)&lines.training;
}

/* A line that timer 0 drives may read low at this moment. */
uint8_t port_levels(void)
{
    return LINES_OF_PORTS(PIND, PINB) | LINES_OF_PWM(TCCR0A);
}

/* ---- the guard ---- */

bool port_guard_start(uint32_t end)
{
    cli();
    bool well = !stop_is_said();
    if (well) {
        stopped = false;
        lines.guarded = true;
        guard_end = end;
        timeline_set(&lines.timeline, TIMELINE_GUARD, end);
        serve_timeline();
    }
    sei();
    return well;
}

/* Every frame does this, so it is quick: the entry in the timeline is moved when its time comes. */
bool port_guard_move(uint32_t end)
{
    cli();
    bool runs = lines.guarded;
    if (runs)
        guard_end = end;
    sei();
    return runs;
}

void port_guard_stop(void)
{
    cli();
    lines.guarded = false;
    timeline_remove(&lines.timeline, TIMELINE_GUARD);
    sei();
}

bool port_guard_runs(void)
{
    return *(volatile bool *)&lines.guarded;
}

bool port_was_stopped(uint32_t *tick)
{
    if (stopped)
        *tick = stop_tick;
    return stopped;
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
    TCCR0A = PWM_MODE;
    TIMSK1 = _BV(TOIE1) | _BV(OCIE1A);
    TCCR1B = _BV(CS10); /* normal mode, one count per cycle */
}
