/* The wire format between host and TTL board. This file is its only description; the host's
 * constants (rtpose_hardware/protocol.py) are tested against it.
 *
 * A frame is a payload and its CRC, closed by FRAME_END. Inside, FRAME_END and FRAME_ESCAPE are
 * replaced by FRAME_ESCAPE and a substitute (the byte stuffing of RFC 1055), so FRAME_END never
 * occurs inside a frame and a reader finds the next frame after any garbage. Two FRAME_END in a
 * row are no frame: a sender may put one in front to close what noise has begun.
 *
 * The CRC is 16 bits, polynomial 0x1021, initial value 0xFFFF, most significant bit first, inverted
 * at the end (CRC-16/GENIBUS: 0xD64E for "123456789"), and sent high byte first. Without the
 * inversion zeros behind a sound frame would go unnoticed; with it the CRC over a sound frame's
 * payload and CRC, not inverted, is always FRAME_RESIDUE. All other
 * numbers are unsigned, low byte first. A frame with a wrong CRC or length is counted and
 * otherwise ignored: it is never answered, because its sequence number cannot be trusted.
 *
 * A payload is: type, sequence number, then what stands behind the type below. The host counts its
 * requests modulo 256; each is answered by exactly one frame with the same number, in order. The
 * board counts its events likewise, separately.
 *
 * Type, sequence number, version and hash in ANSWER_HELLO, and REQUEST_HELLO itself, stay where they
 * are in every version, so that host and board can always find out that they do not match.
 *
 * Times are microseconds of the board's own clock since its reset, 32 bits, wrapping after 71.6
 * minutes. An answer's time is that of the edge when a pin moved or will move, otherwise of the
 * answer.
 *
 * A line is on while it is high, at a level (whatever the duty), or in the high part of a train's
 * period. No on-time is longer than the line's longest, the line stays low for its refractory time
 * before it rises again, and in any window of time it is on for no longer than its dose. An order
 * charges its whole on-time to the dose when it is accepted; what is unused when the line is dropped
 * early is given back. What was used comes back when a window's time has passed since the order's
 * end, up to a quarter of the window late. All that is kept while the host is silent or the board is
 * disarmed, and forgotten at a reset only.
 */
#ifndef PROTOCOL_H
#define PROTOCOL_H

#define PROTOCOL_VERSION 2

#define FRAME_END 0xC0
#define FRAME_ESCAPE 0xDB
#define FRAME_ESCAPED_END 0xDC
#define FRAME_ESCAPED_ESCAPE 0xDD
#define FRAME_RESIDUE 0x1D0F
#define FRAME_MAX_REQUEST 24 /* bytes of payload; a longer one is counted as bad */
#define FRAME_MAX_ANSWER 48
#define RECEIVE_BYTES 255 /* on the wire, that the board holds until it has time for them */

#define LINES 8
#define LINES_WITH_LEVELS 0x06 /* bit n = line n */
#define LEVEL_HZ 7812          /* frequency of a line at a level; 7812.5 */
#define MIN_WIDTH_US 20        /* of on-times, and of the time between two of a train */
#define MAX_WIDTH_US 60000000  /* of on-times, and of a train's delay and period */
#define MIN_DELAY_US 100       /* of a train's delay, but for 0, and of an end that is moved */
#define MAX_SPAN_US 3600000000 /* of refractory times and dose windows */
#define MAX_TRAIN_US 600000000 /* from the order to the last falling edge */
#define MAX_TRAIN_EDGES_HZ 4000 /* of all trains together */
#define MIN_WATCHDOG_MS 20
#define MAX_WATCHDOG_MS 1000
#define DEFAULT_WATCHDOG_MS 100
#define INPUTS 5

/* Requests, and what answers them. Any valid frame restarts the watchdog of an armed board. Those
 * marked * are refused while the board is armed. */
#define REQUEST_HELLO 0x01    /* -> ANSWER_HELLO */
#define REQUEST_STATUS 0x02   /* -> ANSWER_STATUS */
#define REQUEST_COUNTERS 0x03 /* -> ANSWER_COUNTERS */
#define REQUEST_SAFE 0x04     /* all lines low, then disarm -> ANSWER_STATUS, read after that */
#define REQUEST_BEAT 0x05     /* -> DONE */
#define REQUEST_ARM 0x06      /* u16 session, not 0 -> DONE */
#define REQUEST_WATCHDOG 0x07 /* * u16 ms -> DONE */
#define REQUEST_LIMIT 0x08    /* * u8 line, then u32 us each: longest on-time (0 = unusable),
                                 refractory time, dose (0 = no cap, its window then 0 too), window
                                 (0 = since this limit was set) -> DONE. The same limit once more
                                 changes nothing. Another one with a window takes over what is
                                 charged, as if it had been now; one without starts from 0 */
#define REQUEST_INPUT 0x09    /* * u8 input, u8 INPUT_*, u8 pull-up (0, 1), u16 hold-off in us ->
                                 DONE. Edges sooner than that after the last reported one are
                                 counted, not reported. The same once more changes nothing; another
                                 setting forgets what is not reported yet */
#define REQUEST_STOP_INPUT 0x0A /* * u8 STOP_MODE_* -> DONE. The same once more changes nothing */
#define REQUEST_SELF_TEST 0x0B  /* * moves no line -> ANSWER_SELF_TEST, after some 50 ms */
/* Orders to a line; the line is in the low 4 bits. A width is 1 to 4 bytes, us. */
#define REQUEST_OFF 0x10   /* low now, and no more of its train -> DONE, or UNCHANGED if there was
                              nothing to end */
#define REQUEST_ON 0x20    /* width: high now, low by itself at the latest after that. If the line
                              is on, or at a level, it is high from now on and the end moves,
                              to MIN_DELAY_US from now or later, but never beyond longest on-time
                              and dose -> DONE or UNCHANGED */
#define REQUEST_PULSE 0x30 /* width: high for exactly that long; refused if it is on -> DONE */
#define REQUEST_LEVEL 0x40 /* u8 duty, not 0, then width: as ON, but switching at LEVEL_HZ, high for
                              (duty + 1) / 256 of the time; a duty counts from the next period on */
#define REQUEST_TRAIN 0x50 /* u32 delay (0 = at once, within about MIN_DELAY_US), u32 width, u32
                              period, all us, u16 count, not 0: that many pulses, their rising edges
                              one period apart; with a count of 1 the period is not looked at.
                              Refused if the line is on. Until it ends only OFF is obeyed -> DONE,
                              with the time of the first rising edge */

/* Answers. */
#define ANSWER_DONE 0x80      /* u32 time */
#define ANSWER_UNCHANGED 0x81 /* u32 time: obeyed, and no line had to go on or off */
#define ANSWER_REFUSED 0x82   /* u32 time, u8 reason: nothing was done */
#define ANSWER_HELLO 0x83     /* u8 version, u32 hash of this file, u8 lines, u8 those with levels
                                 (bit n = line n), u8 inputs, u8 cause of the last reset, then the
                                 firmware's name in ASCII */
#define ANSWER_STATUS 0x84    /* u32 time, u16 session (0 = disarmed), u8 lines as read back from
                                 the pins (bit n = line n; one at a level counts as high), u16
                                 watchdog in ms, u8 STOP_STATE_*, u8 levels of the inputs (bit n =
                                 input n) */
#define ANSWER_COUNTERS 0x85  /* u16 each, wrapping: good frames, bad frames, bytes lost or damaged
                                 on the wire, refused requests, watchdog trips, stops by the stop
                                 input, edges of inputs that were lost (at least) */
#define ANSWER_SELF_TEST 0x86 /* u8 FAULT_* (0 = well), u8 lines as read back from the pins, u16
                                 checksum of the program memory, u16 bytes of stack that were never
                                 used */

/* Events: frames that the board sends by itself. */
#define EVENT_BOOT 0x90     /* as ANSWER_HELLO: the board was reset and has forgotten its settings */
#define EVENT_WATCHDOG 0x91 /* u32 time, u16 session: no valid frame came, all lines were dropped */
#define EVENT_INPUT 0x92    /* u32 time of the edge, u8 input, u8 level after it, u8 edges that were
                               not reported since the last report of this input (255 = or more) */
#define EVENT_STOP 0x93     /* u32 time, u16 session: the stop input said stop, all lines were
                               dropped and the board is disarmed */

/* Which edges of an input are reported. */
#define INPUT_OFF 0
#define INPUT_RISING 1
#define INPUT_FALLING 2
#define INPUT_BOTH 3

/* What the stop input means. */
#define STOP_MODE_OFF 0    /* it is not used */
#define STOP_MODE_CLOSED 1 /* contact to ground, closed = well, pull-up: a broken wire stops */
#define STOP_MODE_HIGH 2   /* high = well */

/* What the stop input says. While it says stop the board cannot be armed. */
#define STOP_STATE_UNUSED 0
#define STOP_STATE_WELL 1
#define STOP_STATE_STOP 2

/* What the self-test found, bits. */
#define FAULT_PIN 0x01   /* a line reads high although it is driven low */
#define FAULT_FLASH 0x02 /* the program is not the one that was built */
#define FAULT_CLOCK 0x04 /* the clock stands still */
#define FAULT_STACK 0x08 /* the stack is nearly used up */

/* Why a request was refused. */
#define REASON_TYPE 1        /* no such request */
#define REASON_LENGTH 2      /* too short or too long for its type */
#define REASON_LINE 3        /* no such line */
#define REASON_DISARMED 4    /* orders to lines need an armed board */
#define REASON_NO_LIMIT 5    /* the line's longest on-time was not set, or no line's when arming */
#define REASON_WIDTH 6       /* below MIN_WIDTH_US or above the line's longest on-time */
#define REASON_BUSY 7        /* pulse or train on a line that is on; anything but OFF in a train */
#define REASON_VALUE 8       /* out of range */
#define REASON_ARMED 9       /* settings cannot be changed while armed */
#define REASON_SESSION 10    /* armed by another session */
#define REASON_REFRACTORY 11 /* too soon after the last falling edge */
#define REASON_DOSE 12       /* on for too long in the dose's window, with this order */
#define REASON_LEVEL 13      /* a line without levels */
#define REASON_STOPPED 14    /* the stop input says stop */
#define REASON_INPUT 15      /* no such input */
#define REASON_RATE 16       /* more than MAX_TRAIN_EDGES_HZ, with the trains that run */

/* Cause of the last reset. */
#define RESET_UNKNOWN 0 /* a boot loader took the flags */
#define RESET_POWER 1
#define RESET_PIN 2 /* button, or the host opened the port */
#define RESET_BROWN_OUT 3
#define RESET_WATCHDOG 4 /* the firmware hung */

#endif
