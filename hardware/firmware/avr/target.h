/* What the two halves of the ATmega328P target know of each other. */
#ifndef TARGET_H
#define TARGET_H

/* main.c: take what the serial port has received. For sections with interrupts off, where nobody
 * else does: the receiver holds only two bytes, 20 us. */
void uart_poll(void);

/* edges.c: start the clock. */
void edges_start(void);

#endif
