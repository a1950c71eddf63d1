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
 * minutes. An answer's time is that of the edge when a pin moved, otherwise of the answer.
 */
#ifndef PROTOCOL_H
#define PROTOCOL_H

#define PROTOCOL_VERSION 1

#define FRAME_END 0xC0
#define FRAME_ESCAPE 0xDB
#define FRAME_ESCAPED_END 0xDC
#define FRAME_ESCAPED_ESCAPE 0xDD
#define FRAME_RESIDUE 0x1D0F
#define FRAME_MAX_REQUEST 8 /* bytes of payload; a longer one is counted as bad */
#define FRAME_MAX_ANSWER 48

#define LINES 8
#define MIN_WIDTH_US 20
#define MAX_WIDTH_US 60000000
#define MIN_WATCHDOG_MS 20
#define MAX_WATCHDOG_MS 1000
#define DEFAULT_WATCHDOG_MS 100

/* Requests, and what answers them. Any valid frame restarts the watchdog of an armed board. */
#define REQUEST_HELLO 0x01    /* -> ANSWER_HELLO */
#define REQUEST_STATUS 0x02   /* -> ANSWER_STATUS */
#define REQUEST_COUNTERS 0x03 /* -> ANSWER_COUNTERS */
#define REQUEST_SAFE 0x04     /* all lines low, then disarm -> ANSWER_STATUS, read back after that */
#define REQUEST_BEAT 0x05     /* -> DONE */
#define REQUEST_ARM 0x06      /* u16 session, not 0 -> DONE */
#define REQUEST_WATCHDOG 0x07 /* u16 ms; only while disarmed -> DONE */
#define REQUEST_LIMIT 0x08    /* u8 line, u32 longest on-time in us, 0 = unusable; only while
                                 disarmed -> DONE */
/* Orders to a line; the line is in the low 4 bits. A width is 1 to 4 bytes, us. */
#define REQUEST_OFF 0x10   /* low now -> DONE, or UNCHANGED if it was low */
#define REQUEST_ON 0x20    /* width: high now, low by itself at the latest after that. If the line is
                              high already the end moves, never beyond the line's longest on-time
                              after its rising edge -> DONE or UNCHANGED */
#define REQUEST_PULSE 0x30 /* width: high for exactly that long; refused if the line is high -> DONE */

/* Answers. */
#define ANSWER_DONE 0x80      /* u32 time */
#define ANSWER_UNCHANGED 0x81 /* u32 time: obeyed, and no pin had to move */
#define ANSWER_REFUSED 0x82   /* u32 time, u8 reason: nothing was done */
#define ANSWER_HELLO 0x83     /* u8 version, u32 hash of this file, u8 lines, u8 cause of the last
                                 reset, then the firmware's name in ASCII */
#define ANSWER_STATUS 0x84    /* u32 time, u16 session (0 = disarmed), u8 levels read back from the
                                 pins, bit n = line n, u16 watchdog in ms */
#define ANSWER_COUNTERS 0x85  /* u16 each, wrapping: good frames, bad frames, bytes lost or damaged
                                 on the wire, refused requests, watchdog trips */

/* Events: frames that the board sends by itself. */
#define EVENT_BOOT 0x90     /* as ANSWER_HELLO: the board was reset, and has forgotten its limits */
#define EVENT_WATCHDOG 0x91 /* u32 time, u16 session: no valid frame came, all lines were dropped */

/* Why a request was refused. */
#define REASON_TYPE 1      /* no such request */
#define REASON_LENGTH 2    /* too short or too long for its type */
#define REASON_LINE 3      /* no such line */
#define REASON_DISARMED 4  /* orders to lines need an armed board */
#define REASON_NO_LIMIT 5  /* the line's longest on-time was not set, or no line's when arming */
#define REASON_WIDTH 6     /* below MIN_WIDTH_US or above the line's longest on-time */
#define REASON_BUSY 7      /* pulse on a line that is high */
#define REASON_VALUE 8     /* out of range */
#define REASON_ARMED 9     /* limits and watchdog cannot be changed while armed */
#define REASON_SESSION 10  /* armed by another session */

/* Cause of the last reset. */
#define RESET_UNKNOWN 0 /* a boot loader took the flags */
#define RESET_POWER 1
#define RESET_PIN 2 /* button, or the host opened the port */
#define RESET_BROWN_OUT 3
#define RESET_WATCHDOG 4 /* the firmware hung */

#endif
