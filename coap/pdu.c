/* SPDX-License-Identifier: Apache-2.0 */

/* Requests out of libcoap's PDUs, answers into them. */

#include "coap/pdu.h"

#include <coap3/coap.h>
#include <errno.h>

#include "gatewayd/format.h"

/* Options that libcoap 4.3.1 has no name for. */
#define OPTION_NO_RESPONSE 258
#define OPTION_REQUEST_TAG 292

void answer_clear(struct answer *answer) {
        buffer_free(&answer->problem);
        *answer = ANSWER_NONE;
}

void answer_with_problem(struct answer *answer, const struct problem *problem) {
        answer->code = problem->code;
        answer->content_format = FORMAT_PROBLEM;
        answer->max_age_sec = problem->max_age_sec > 0 ? problem->max_age_sec : -1;
        answer->size1 = problem->size1;
        answer->problem.size = 0;
        problem_to_cbor(problem, &answer->problem);
        answer->payload = buffer_bytes(&answer->problem);
}

static uint32_t option_uint(struct bytes value) {
        return coap_decode_var_bytes(value.data, value.size > 4 ? 4 : value.size);
}

static struct block option_block(struct bytes value) {
        uint32_t number = option_uint(value);

        return (struct block){
                .is_present = true,
                .is_bad = value.size > 3 || (number & 7) == 7,
                .has_more = number & 8,
                .number = number >> 4,
                .size_exponent = number & 7,
        };
}

static void join(struct buffer *to, struct bytes segment, char separator, bool is_first) {
        if (!is_first)
                buffer_append(to, BYTES(&separator, 1));
        for (size_t i = 0; i < segment.size; i++) {
                if (segment.data[i] == (uint8_t)separator)
                        buffer_printf(to, "%%%02X", (unsigned)separator);
                else
                        buffer_append(to, BYTES(segment.data + i, 1));
        }
}

static void take_option(uint16_t number, struct bytes value, struct request_scratch *scratch, struct request *ret,
                        unsigned *paths, unsigned *queries) {
        switch (number) {
        case COAP_OPTION_URI_PATH:
                join(&scratch->path, value, '/', (*paths)++ == 0);
                break;
        case COAP_OPTION_URI_QUERY:
                join(&scratch->query, value, '&', (*queries)++ == 0);
                break;
        case COAP_OPTION_CONTENT_FORMAT:
                ret->content_format = (int32_t)(option_uint(value) & UINT16_MAX);
                break;
        case COAP_OPTION_ACCEPT:
                ret->accept = (int32_t)(option_uint(value) & UINT16_MAX);
                break;
        case COAP_OPTION_OBSERVE:
                ret->observe = (int32_t)(option_uint(value) & 0xffffff);
                break;
        case COAP_OPTION_BLOCK1:
                ret->block1 = option_block(value);
                break;
        case COAP_OPTION_BLOCK2:
                ret->block2 = option_block(value);
                break;
        case COAP_OPTION_SIZE1:
                ret->size1 = option_uint(value);
                break;
        case OPTION_REQUEST_TAG:
                if (!ret->request_tag.data)
                        ret->request_tag = value;
                break;
        case OPTION_NO_RESPONSE:
                ret->no_response = (uint8_t)option_uint(value);
                break;
        case COAP_OPTION_IF_MATCH:
        case COAP_OPTION_IF_NONE_MATCH:
                /* libcoap takes them for granted; nobody here acts on them. */
                ret->refused_option = number;
                break;
        default:
                break;
        }
}

void request_of_pdu(const coap_pdu_t *pdu, struct request_scratch *scratch, struct request *ret) {
        coap_bin_const_t token = coap_pdu_get_token(pdu);
        unsigned paths = 0, queries = 0;
        coap_opt_iterator_t iterator;
        const coap_opt_t *option;
        const uint8_t *data = NULL;
        size_t size = 0;

        *ret = (struct request){
                .is_confirmable = coap_pdu_get_type(pdu) == COAP_MESSAGE_CON,
                .message_id = (uint16_t)coap_pdu_get_mid(pdu),
                .token = BYTES(token.s, token.length),
                .method = (uint8_t)coap_pdu_get_code(pdu),
                .content_format = FORMAT_NONE,
                .accept = FORMAT_NONE,
                .observe = -1,
        };
        scratch->path.size = scratch->query.size = 0;
        coap_option_iterator_init(pdu, &iterator, COAP_OPT_ALL);
        while ((option = coap_option_next(&iterator)))
                take_option(iterator.number, BYTES(coap_opt_value(option), coap_opt_length(option)), scratch, ret,
                            &paths, &queries);
        ret->path = buffer_bytes(&scratch->path);
        ret->query = buffer_bytes(&scratch->query);
        if (coap_get_data(pdu, &size, &data))
                ret->payload = BYTES(data, size);
}

static bool add(coap_pdu_t *pdu, uint16_t number, struct bytes value) {
        return coap_add_option(pdu, number, value.size, value.data) > 0;
}

static bool add_uint(coap_pdu_t *pdu, uint16_t number, uint32_t value) {
        uint8_t encoded[4];
        size_t size = coap_encode_var_safe(encoded, sizeof encoded, value);

        return add(pdu, number, BYTES(encoded, size));
}

static bool add_block(coap_pdu_t *pdu, uint16_t number, const struct block *block) {
        return add_uint(pdu, number, block->number << 4 | (block->has_more ? 8U : 0U) | block->size_exponent);
}

int answer_to_pdu(const struct answer *answer, coap_pdu_t *pdu) {
        bool fits = true;

        coap_pdu_set_code(pdu, answer->code);
        if (answer->has_etag)
                fits = fits && add(pdu, COAP_OPTION_ETAG, BYTES(answer->etag, ETAG_BYTES));
        if (answer->observe >= 0)
                fits = fits && add_uint(pdu, COAP_OPTION_OBSERVE, (uint32_t)answer->observe);
        if (answer->content_format >= 0)
                fits = fits && add_uint(pdu, COAP_OPTION_CONTENT_FORMAT, (uint32_t)answer->content_format);
        if (answer->max_age_sec >= 0)
                fits = fits && add_uint(pdu, COAP_OPTION_MAXAGE,
                                        answer->max_age_sec > UINT32_MAX ? UINT32_MAX : (uint32_t)answer->max_age_sec);
        if (answer->block2.is_present)
                fits = fits && add_block(pdu, COAP_OPTION_BLOCK2, &answer->block2);
        if (answer->block1.is_present)
                fits = fits && add_block(pdu, COAP_OPTION_BLOCK1, &answer->block1);
        if (answer->size2 > 0)
                fits = fits && add_uint(pdu, COAP_OPTION_SIZE2, answer->size2);
        if (answer->size1 > 0)
                fits = fits && add_uint(pdu, COAP_OPTION_SIZE1, answer->size1);
        if (answer->payload.size > 0)
                fits = fits && coap_add_data(pdu, answer->payload.size, answer->payload.data);
        return fits ? 0 : -EMSGSIZE;
}
