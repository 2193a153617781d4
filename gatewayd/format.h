/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* CoAP Content-Formats (IANA registry) that gatewayd speaks. */

enum content_format {
        FORMAT_NONE = -1,
        FORMAT_TEXT = 0,
        FORMAT_COSE_SIGN1 = 18,
        FORMAT_LINK = 40,
        FORMAT_OCTETS = 42,
        FORMAT_CBOR = 60,
        FORMAT_CWT = 61,
        FORMAT_MULTIPART = 62,
        FORMAT_COSE_KEY = 101,
        FORMAT_PROBLEM = 257,
        FORMAT_EAT_CWT = 263,
        FORMAT_EAT_JWT = 264,
        FORMAT_CMW_CBOR = 273,
        FORMAT_PKCS7_KEY = 280,   /* pkcs7-mime; smime-type=server-generated-key */
        FORMAT_PKCS7_CERTS = 281, /* pkcs7-mime; smime-type=certs-only */
        FORMAT_PKCS8 = 284,
        FORMAT_CSRATTRS = 285,
        FORMAT_PKCS10 = 286,
        FORMAT_PKIX_CERT = 287,
        FORMAT_UCCS = 601,
        FORMAT_PSA_2023 = 10003,
        FORMAT_PSA_LEGACY = 10004,
};
