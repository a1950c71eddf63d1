/* The inputs. Input 0 is stamped by timer 1's capture unit, to the cycle; the others by an
 * interrupt at a change of their pins. The stop input has an interrupt of its own, in edges.c.
 *
 * An input that changes as fast as it can must not keep the chip from its lines. So an interrupt
 * only notes what it saw, and a full ring switches it off until the main loop has made room; and
 * an input with more than MOST edges within one turn of timer 1 is not looked at until the next. */
#include <avr/interrupt.h>
#include <avr/io.h>
#include <util/delay.h>

#include "../board.h"
#include "pins.h"
#include "target.h"

#define MOST 16        /* edges of one input in 65536 cycles, 4.1 ms */
#define NOTES 4        /* a power of 2 */
#define SETTLE_US 50   /* of a pin after its pull-up was switched on */
#define CHANGE_LATE 44 /* cycles from a change of a pin to the reading of the timer */

struct note {
    uint16_t reading; /* of timer 1 */
    uint8_t turn;     /* its overflows, low byte */
    uint8_t levels;   /* after it: of port C, or of the capture pin in bit 0 */
};

struct ring {
    volatile uint8_t in, out;
    struct note notes[NOTES];
};

uint8_t stop_mask, stop_well, seen, watched;
bool changes_yielded;

static struct ring captures, changes;
static uint8_t capture_mode; /* one of INPUT_* */
static uint8_t configured;   /* pins of port C that are in use */
static uint8_t told;         /* levels as handed over */
static uint8_t current_turn, edges_in_turn[INPUTS];

/* ---- in interrupts ---- */

static inline uint8_t after(uint8_t slot)
{
    return (slot + 1) & (NOTES - 1);
}

static inline bool is_full(const struct ring *ring)
{
    return after(ring->in) == ring->out;
}

static inline void put(struct ring *ring, uint16_t reading, uint8_t levels)
{
    uint8_t turn = turn_of_timer();
    if (TIFR1 & _BV(TOV1) && reading < 0x8000)
        turn++;
    ring->notes[ring->in] = (struct note){reading, turn, levels};
    ring->in = after(ring->in);
}

void note_changes(uint8_t changed)
{
    uint16_t reading = TCNT1;
    if (is_full(&changes)) {
        PCICR = 0;
        board_edges_lost++;
        return;
    }
    seen ^= changed;
    put(&changes, reading, seen);
}

/* The serial port's interrupt has to wait while these follow each other closely. The edges of the
 * lines do not: this interrupt would come before theirs again and again. */
ISR(PCINT1_vect)
{
    changes_poll();
    uart_poll();
    if (TIFR1 & _BV(OCF1A)) {
        PCICR = 0;
        changes_yielded = true;
    }
}

/* For both edges the unit is turned round each time. If the pin has changed back by then, that edge
 * is lost. */
ISR(TIMER1_CAPT_vect)
{
    uint16_t reading = ICR1;
    uint8_t rising = TCCR1B & _BV(ICES1);
    put(&captures, reading, rising != 0);
    if (capture_mode == INPUT_BOTH) {
        TCCR1B ^= _BV(ICES1);
        TIFR1 = _BV(ICF1);
        bool high = PINB & _BV(CAPTURE_BIT);
        if (high != (rising != 0)) {
            TCCR1B ^= _BV(ICES1);
            TIFR1 = _BV(ICF1);
            board_edges_lost++;
        }
    }
    if (is_full(&captures))
        TIMSK1 &= ~_BV(ICIE1);
    uart_poll();
}

/* ---- in the main loop ---- */

/* Look for edges of the capture pin (again). */
static void watch_capture(void)
{
    cli();
    if (TIFR1 & _BV(ICF1))
        board_edges_lost++;
    bool high = PINB & _BV(CAPTURE_BIT);
    if (capture_mode == INPUT_RISING || (capture_mode == INPUT_BOTH && !high))
        TCCR1B |= _BV(ICES1);
    else
        TCCR1B &= ~_BV(ICES1);
    TIFR1 = _BV(ICF1);
    TIMSK1 |= _BV(ICIE1);
    sei();
}

/* The pins of port C that have not had too many edges in this turn. */
static uint8_t calm(void)
{
    uint8_t pins = configured;
    for (uint8_t input = 1; input < INPUTS; input++)
        if (edges_in_turn[input] >= MOST)
            pins &= ~(1 << (input - 1));
    return pins;
}

/* Look for changes of these pins of port C (again), from their levels on. */
static void watch_changes(uint8_t pins)
{
    cli();
    if (changes.in == changes.out) { /* else after those */
        uint8_t added = PCICR ? pins & ~watched : pins;
        seen = (seen & ~added) | (PINC & added);
        told = seen;
        watched = pins;
        PCMSK1 = pins;
        PCICR = pins ? _BV(PCIE1) : 0;
    }
    sei();
}

/* Once everything is handed over: look again where it was too much. */
static void resume(void)
{
    if (current_turn != turn_of_timer()) {
        current_turn = turn_of_timer();
        for (uint8_t input = 0; input < INPUTS; input++)
            edges_in_turn[input] = 0;
    }
    if (capture_mode && !(TIMSK1 & _BV(ICIE1)) && edges_in_turn[0] < MOST)
        watch_capture();
    if (configured) {
        uint8_t pins = calm();
        if (pins != watched || !PCICR)
            watch_changes(pins);
    }
}

static uint32_t tick_of(const struct note *note)
{
    cli();
    uint32_t counted = overflows;
    sei();
    counted -= (uint32_t)(int8_t)((uint8_t)counted - note->turn);
    return counted << 16 | note->reading;
}

static bool take_capture(struct edge *edge)
{
    if (captures.out == captures.in)
        return false;
    const struct note *note = &captures.notes[captures.out];
    *edge = (struct edge){tick_of(note), 0, note->levels};
    captures.out = after(captures.out);
    if (++edges_in_turn[0] == MOST) {
        cli();
        TIMSK1 &= ~_BV(ICIE1);
        sei();
    }
    return true;
}

/* A note may tell of several pins: one edge at a time. */
static bool take_change(struct edge *edge)
{
    if (changes.out == changes.in)
        return false;
    const struct note *note = &changes.notes[changes.out];
    uint8_t changed = note->levels ^ told, input = 1, pin = 1;
    for (; !(changed & pin); pin <<= 1)
        input++;
    *edge = (struct edge){tick_of(note) - CHANGE_LATE, input, (note->levels & pin) != 0};
    told ^= pin;
    if (told == note->levels)
        changes.out = after(changes.out);
    if (++edges_in_turn[input] == MOST)
        board_edges_lost++;
    return true;
}

/* ---- what board.h asks for ---- */

bool port_take_edge(struct edge *edge)
{
    if (!capture_mode && !configured)
        return false; /* quickly */
    if (take_capture(edge) || take_change(edge))
        return true;
    resume();
    return false;
}

static void set_pull_up(volatile uint8_t *port, uint8_t bits, bool pull_up)
{
    cli();
    if (pull_up)
        *port |= bits;
    else
        *port &= ~bits;
    sei();
    _delay_us(SETTLE_US);
}

void port_set_input(uint8_t input, uint8_t mode, bool pull_up)
{
    if (input == 0) {
        set_pull_up(&PORTB, _BV(CAPTURE_BIT), pull_up);
        cli();
        TIMSK1 &= ~_BV(ICIE1); /* resume() goes on */
        TIFR1 = _BV(ICF1);
        captures.out = captures.in;
        capture_mode = mode;
        sei();
        return;
    }
    uint8_t pin = 1 << (input - 1);
    set_pull_up(&PORTC, pin, pull_up);
    configured = mode ? configured | pin : configured & ~pin;
    cli();
    changes.out = changes.in; /* what they tell of the other pins is seen again below */
    watched = 0;
    sei();
    watch_changes(configured);
}

uint8_t port_inputs(void)
{
    return INPUTS_OF_PORTS(PINB, PINC);
}

void port_set_stop(uint8_t mode)
{
    cli();
    EIMSK = 0;
    stop_mask = 0;
    sei();
    set_pull_up(&PORTD, _BV(STOP_BIT), mode == STOP_MODE_CLOSED);
    if (mode == STOP_MODE_OFF)
        return;
    cli();
    stop_mask = _BV(STOP_BIT);
    stop_well = mode == STOP_MODE_HIGH ? _BV(STOP_BIT) : 0;
    EICRA = mode == STOP_MODE_HIGH ? _BV(ISC01) : _BV(ISC01) | _BV(ISC00); /* falling or rising */
    EIFR = _BV(INTF0);
    EIMSK = _BV(INT0);
    sei();
}

uint8_t port_stop_state(void)
{
    if (!stop_mask)
        return STOP_STATE_UNUSED;
    return stop_is_said() ? STOP_STATE_STOP : STOP_STATE_WELL;
}
