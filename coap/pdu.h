/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* CoAP messages as plain structs, and the way from and to libcoap's PDUs. What works with requests
 * and answers (requests.c, blocks.c, observers.c) never sees libcoap. */

#include "gatewayd/bytes.h"
#include "gatewayd/problem.h"

#define TOKEN_MAX  8
#define ETAG_BYTES 8

/* RFC 7959 §2.2. `size_exponent` 7 is reserved: is_bad. */
struct block {
        bool is_present, is_bad, has_more;
        uint32_t number;
        uint8_t size_exponent;
};

static inline size_t block_bytes(uint8_t size_exponent) {
        return (size_t)16 << size_exponent;
}

/* A request; slices borrow from the datagram and from the parser's scratch. */
struct request {
        bool is_confirmable;
        uint16_t message_id;
        struct bytes token;
        uint8_t method;
        struct bytes path;      /* segments joined by '/'; a '/' inside a segment is "%2F" */
        struct bytes query;     /* joined by '&'; a '&' inside one is "%26" */
        int32_t content_format; /* FORMAT_NONE when absent */
        int32_t accept;         /* FORMAT_NONE when absent */
        int32_t observe;        /* -1 absent */
        struct block block1, block2;
        uint32_t size1;           /* 0 absent */
        struct bytes request_tag; /* RFC 9175 §3; data NULL when absent */
        uint8_t no_response;      /* RFC 7967: classes 2 (bit 1), 4 (bit 3), 5 (bit 4) not wanted */
        uint16_t refused_option;  /* a critical option that we may not ignore; 0 none */
        struct bytes payload;
};

struct answer {
        uint8_t code;
        int32_t content_format;
        int64_t max_age_sec; /* -1: no option */
        uint32_t size1;      /* 0: no option */
        uint32_t size2;      /* 0: no option */
        bool has_etag;
        uint8_t etag[ETAG_BYTES];
        int32_t observe; /* -1: no option */
        struct block block1, block2;
        struct bytes payload;  /* borrowed */
        struct buffer problem; /* what `payload` borrows from where south itself answers */
};

#define ANSWER_NONE ((struct answer){ .content_format = -1, .max_age_sec = -1, .observe = -1 })

void answer_clear(struct answer *answer);
/* An error body of our own (RFC 9290). */
void answer_with_problem(struct answer *answer, const struct problem *problem);

/* Room that parsing needs; reused from request to request. */
struct request_scratch {
        struct buffer path, query;
};

struct coap_pdu_t;
void request_of_pdu(const struct coap_pdu_t *pdu, struct request_scratch *scratch, struct request *ret);
/* Adds options and payload to a PDU that has its token. Returns 0, or -EMSGSIZE when they do not fit. */
int answer_to_pdu(const struct answer *answer, struct coap_pdu_t *pdu);
