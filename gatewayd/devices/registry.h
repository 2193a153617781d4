/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* Within devices/: checks of a registration's parts, shared by registry.c and import.c. */

#include "gatewayd/devices/devices.h"

/* Shorter keys can be searched for (RFC 9257 §4.1: at least 128 bits). */
#define REGISTRY_PSK_MIN 16

/* 0, or -EINVAL with the rule. */
int registry_check_id(const char *id, struct problem *problem);
/* SubjectPublicKeyInfo of a kind that evidence can be signed with: P-256, P-384, P-521, Ed25519. */
int registry_check_attestation_key(struct bytes der, struct problem *problem);
