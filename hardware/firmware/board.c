#include "board.h"

#include <string.h>

#include "frame.h"
#include "inputs.h"
#include "limits.h"
#include "orders.h"
#include "wire.h"

#ifndef PROTOCOL_HASH
#error "PROTOCOL_HASH: the build must pass the hash of protocol.h"
#endif

#define LEAST_FREE_STACK 64 /* bytes */

static struct frame_reader reader;

static struct {
    uint16_t session; /* 0 = disarmed */
    uint16_t watchdog_ms;
    uint32_t guard_end;
    uint8_t reset_cause, stop_mode;
    uint16_t good, bad, trips, stops;
} board;

volatile uint16_t board_wire_errors, board_edges_lost;

/* ---- answers ---- */

static uint8_t describe(uint8_t *payload)
{
    uint8_t *to = payload + 2;
    *to++ = PROTOCOL_VERSION;
    to = write_u32(to, PROTOCOL_HASH);
    *to++ = LINES;
    *to++ = LINES_WITH_LEVELS;
    *to++ = INPUTS;
    *to++ = board.reset_cause;
    uint8_t name = (uint8_t)strlen(port_name);
    memcpy(to, port_name, name);
    return (uint8_t)(to - payload) + name;
}

static void answer_hello(const struct request *request)
{
    uint8_t payload[FRAME_MAX_ANSWER] = {ANSWER_HELLO, request->sequence};
    frame_write(payload, describe(payload), port_put);
}

static void answer_status(const struct request *request)
{
    uint8_t payload[13] = {ANSWER_STATUS, request->sequence};
    uint8_t *to = write_u32(payload + 2, port_us(port_now()));
    to = write_u16(to, board.session);
    *to++ = port_levels();
    to = write_u16(to, board.watchdog_ms);
    *to++ = port_stop_state();
    *to = port_inputs();
    frame_write(payload, sizeof payload, port_put);
}

static void answer_counters(const struct request *request)
{
    uint8_t payload[16] = {ANSWER_COUNTERS, request->sequence};
    uint8_t *to = write_u16(payload + 2, board.good);
    to = write_u16(to, board.bad);
    to = write_u16(to, board_wire_errors);
    to = write_u16(to, wire_refused);
    to = write_u16(to, board.trips);
    to = write_u16(to, board.stops);
    write_u16(to, board_edges_lost);
    frame_write(payload, sizeof payload, port_put);
}

static void answer_self_test(const struct request *request)
{
    struct health health;
    port_examine(&health);
    uint8_t levels = port_levels(), faults = 0;
    if (levels) /* it is disarmed, so all are driven low */
        faults |= FAULT_PIN;
    if (health.checksum != health.built_checksum)
        faults |= FAULT_FLASH;
    if (!health.clock_runs)
        faults |= FAULT_CLOCK;
    if (health.free_stack < LEAST_FREE_STACK)
        faults |= FAULT_STACK;
    uint8_t payload[8] = {ANSWER_SELF_TEST, request->sequence, faults, levels};
    write_u16(write_u16(payload + 4, health.checksum), health.free_stack);
    frame_write(payload, sizeof payload, port_put);
}

/* ---- arming, watchdog, stop ---- */

static void disarm(void)
{
    board.session = 0;
    port_show_armed(false);
}

/* Start or move the guard. If that came too late, its end stays what it was: the trip's time. */
static bool renew_guard(bool (*renew)(uint32_t end))
{
    uint32_t end = port_now() + board.watchdog_ms * (1000 * PORT_TICKS_PER_US);
    bool renewed = renew(end);
    if (renewed)
        board.guard_end = end;
    return renewed;
}

/* The target has dropped the lines already, at the very tick; this is the bookkeeping. */
static void notice_end_of_guard(void)
{
    uint32_t tick = board.guard_end;
    bool stopped = port_was_stopped(&tick);
    uint8_t payload[8];
    write_u16(write_u32(payload + 2, port_us(tick)), board.session);
    disarm();
    limits_drop(ALL_LINES, tick);
    if (stopped)
        board.stops++;
    else
        board.trips++;
    send_event(stopped ? EVENT_STOP : EVENT_WATCHDOG, payload, sizeof payload);
}

static void make_safe(void)
{
    uint32_t tick;
    port_drop(ALL_LINES, &tick);
    port_guard_stop();
    disarm();
    limits_drop(ALL_LINES, tick);
}

static void arm(const struct request *request)
{
    uint16_t session = (uint16_t)read_number(request->data, 2);
    if (session == 0) {
        refuse(request, REASON_VALUE);
    } else if (!limits_usable()) {
        refuse(request, REASON_NO_LIMIT);
    } else if (board.session != 0 && board.session != session) {
        refuse(request, REASON_SESSION);
    } else if (!renew_guard(port_guard_start)) {
        refuse(request, REASON_STOPPED);
    } else {
        board.session = session;
        port_show_armed(true);
        answer(request, ANSWER_DONE, port_now());
    }
}

/* ---- settings ---- */

static void obey_or_refuse(const struct request *request, uint8_t reason)
{
    if (reason)
        refuse(request, reason);
    else
        answer(request, ANSWER_DONE, port_now());
}

static uint8_t set_watchdog(uint16_t ms)
{
    if (ms < MIN_WATCHDOG_MS || ms > MAX_WATCHDOG_MS)
        return REASON_VALUE;
    board.watchdog_ms = ms;
    return 0;
}

static uint8_t set_limit(const uint8_t *data)
{
    const struct limit limit = {read_number(data + 1, 4), read_number(data + 5, 4),
                                read_number(data + 9, 4), read_number(data + 13, 4)};
    return limit_set(data[0], &limit);
}

static uint8_t set_stop(uint8_t mode)
{
    if (mode > STOP_MODE_HIGH)
        return REASON_VALUE;
    if (mode != board.stop_mode)
        port_set_stop(mode);
    board.stop_mode = mode;
    return 0;
}

/* What may not be done while armed. */
static void set(const struct request *request)
{
    if (board.session) {
        refuse(request, REASON_ARMED);
        return;
    }
    switch (request->type) {
    case REQUEST_WATCHDOG:
        obey_or_refuse(request, set_watchdog((uint16_t)read_number(request->data, 2)));
        break;
    case REQUEST_LIMIT:
        obey_or_refuse(request, set_limit(request->data));
        break;
    case REQUEST_INPUT:
        set_input(request);
        break;
    case REQUEST_STOP_INPUT:
        obey_or_refuse(request, set_stop(request->data[0]));
        break;
    default:
        answer_self_test(request);
    }
}

/* ---- requests ---- */

static uint8_t length_of(uint8_t type)
{
    switch (type) {
    case REQUEST_STOP_INPUT:
        return 1;
    case REQUEST_ARM:
    case REQUEST_WATCHDOG:
        return 2;
    case REQUEST_INPUT:
        return 5;
    case REQUEST_LIMIT:
        return 17;
    default:
        return 0;
    }
}

static void obey(const struct request *request)
{
    switch (request->type) {
    case REQUEST_HELLO:
        answer_hello(request);
        break;
    case REQUEST_SAFE:
        make_safe();
        answer_status(request);
        break;
    case REQUEST_STATUS:
        answer_status(request);
        break;
    case REQUEST_COUNTERS:
        answer_counters(request);
        break;
    case REQUEST_BEAT:
        answer(request, ANSWER_DONE, port_now());
        break;
    case REQUEST_ARM:
        arm(request);
        break;
    case REQUEST_WATCHDOG:
    case REQUEST_LIMIT:
    case REQUEST_INPUT:
    case REQUEST_STOP_INPUT:
    case REQUEST_SELF_TEST:
        set(request);
        break;
    default:
        refuse(request, REASON_TYPE);
    }
}

static void poll_guard(void)
{
    if (board.session && !port_guard_runs())
        notice_end_of_guard();
}

void board_poll(void)
{
    poll_guard();
    inputs_poll();
}

void board_tick(void)
{
    limits_tick();
    inputs_tick();
}

void board_take(uint8_t byte)
{
    uint8_t length = frame_take(&reader, byte);
    if (length == FRAME_PENDING)
        return;
    if (length == FRAME_BAD) {
        board.bad++;
        return;
    }
    board.good++;
    poll_guard();
    struct request request = {reader.data[0], reader.data[1], (uint8_t)(length - 2),
                              reader.data + 2};
    if (is_order(request.type))
        order(&request, board.session != 0);
    else if (request.length != length_of(request.type))
        refuse(&request, REASON_LENGTH);
    else
        obey(&request);
    if (board.session) /* last, because it may wait while the edge may not */
        renew_guard(port_guard_move);
}

void board_start(uint8_t reset_cause)
{
    memset(&board, 0, sizeof board);
    board.watchdog_ms = DEFAULT_WATCHDOG_MS;
    board.reset_cause = reset_cause;
    wire_restart();
    frame_restart(&reader);
    limits_restart();
    orders_restart();
    inputs_restart();
    port_put(FRAME_END); /* close what a boot loader may have left on the wire */
    uint8_t payload[FRAME_MAX_ANSWER];
    send_event(EVENT_BOOT, payload, describe(payload));
}
