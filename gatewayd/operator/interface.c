/* SPDX-License-Identifier: Apache-2.0 */

/* org.gatewayd.Manager1: its methods, with what goes in and what comes out. */

#include "gatewayd/operator/methods.h"

static const struct method methods[] = {
        { "ImportDevices", method_import_devices },
        { "AddDevice", method_add_device },
        { "RemoveDevice", method_remove_device },
        { "RevokeDevice", method_revoke_device },
        { "ResetDevice", method_reset_device },
        { "RotateDevice", method_rotate_device },
        { "Rotate", method_rotate },
        { "PauseRotation", method_pause_rotation },
        { "ResumeRotation", method_resume_rotation },
        { "ReleaseDevice", method_release_device },
        { "ListDevices", method_list_devices },
        { "ShowDevice", method_show_device },
        { "Status", method_status },
        { "Audit", method_audit },
        { "VerifyAudit", method_verify_audit },
        { "RelayNow", method_relay_now },
        { "MakeRecoveryKey", method_make_recovery_key },
        { "SealingPlace", method_sealing_place },
        { "PrepareSealingKey", method_prepare_sealing_key },
        { "FinishSealingKey", method_finish_sealing_key },
        { "Now", method_now },
        { "ListKeys", method_list_keys },
        { "CountDeviceKeys", method_count_device_keys },
        { "ListDeviceKeys", method_list_device_keys },
        { "CaInit", method_ca_init },
        { "CaCsr", method_ca_csr },
        { "CaImport", method_ca_import },
        { "CaRoll", method_ca_roll },
        { "CaShow", method_ca_show },
        { "CaCrl", method_ca_crl },
        { "CaAnchors", method_ca_anchors },
        { "Backup", method_backup },
        { "BackupKept", method_backup_kept },
        { "ListMissing", method_list_missing },
};

const struct method *method_find(const char *name) {
        for (size_t i = 0; i < ELEMENTS(methods); i++)
                if (strcmp(methods[i].name, name) == 0)
                        return &methods[i];
        return NULL;
}

/* Unprivileged as sd-bus sees it: who may ask is decided by the socket's mode, and on_uid() in control.c. */
#define METHOD(name, in, in_names, out, out_names)                                                                     \
        SD_BUS_METHOD_WITH_NAMES(name, in, in_names, out, out_names, control_on_method, SD_BUS_VTABLE_UNPRIVILEGED)
#define N(name) SD_BUS_PARAM(name)

const sd_bus_vtable control_vtable[] = {
        SD_BUS_VTABLE_START(0),
        /* cppcheck-suppress unknownMacro ; SD_BUS_PARAM is sd-bus's */
        METHOD("ImportDevices", "sbb", N(text) N(is_json) N(dry_run), "uas", N(added) N(warnings)),
        METHOD("AddDevice", "sssss", N(id) N(profile) N(psk) N(attestation_key) N(idevid), "uas", N(added) N(warnings)),
        METHOD("RemoveDevice", "s", N(id), "b", N(changed)),
        METHOD("RevokeDevice", "ss", N(id) N(reason), "b", N(changed)),
        METHOD("ResetDevice", "sx", N(id) N(seconds), "b", N(changed)),
        METHOD("RotateDevice", "sbx", N(id) N(compromised) N(since), "b", N(changed)),
        METHOD("Rotate", "ssx", N(name) N(kind) N(within), "bs", N(changed) N(kind)),
        METHOD("PauseRotation", "sx", N(profile) N(seconds), "b", N(changed)),
        METHOD("ResumeRotation", "s", N(profile), "b", N(changed)),
        METHOD("ReleaseDevice", "s", N(id), "b", N(changed)),
        METHOD("ListDevices", "sua{ss}", N(after) N(limit) N(filter), "aa{sv}s", N(devices) N(next)),
        METHOD("ShowDevice", "s", N(id), "a{sv}aa{sv}", N(device) N(credentials)),
        METHOD("Status", "", , "a{sa{sv}}", N(sections)),
        METHOD("Audit", "stub", N(device) N(after) N(limit) N(last), "aa{sv}", N(rows)),
        METHOD("VerifyAudit", "", , "bt", N(good) N(first_bad)),
        METHOD("RelayNow", "", , "b", N(changed)),
        METHOD("MakeRecoveryKey", "", , "s", N(recovery_key)),
        METHOD("Now", "", , "xxs", N(time) N(powered) N(quality)),
        METHOD("SealingPlace", "", , "bs", N(is_file) N(path)),
        METHOD("PrepareSealingKey", "ayb", N(key) N(only_look), "s", N(state)),
        METHOD("FinishSealingKey", "ay", N(key), "b", N(changed)),
        METHOD("ListKeys", "", , "aa{sv}", N(keys)),
        METHOD("CountDeviceKeys", "su", N(after) N(limit), "aa{sv}s", N(profiles) N(next)),
        METHOD("ListDeviceKeys", "ssu", N(profile) N(after) N(limit), "aa{sv}s", N(keys) N(next)),
        METHOD("CaInit", "s", N(key_uri), "b", N(changed)),
        METHOD("CaCsr", "sb", N(key_uri) N(is_new), "ay", N(pkcs10)),
        METHOD("CaImport", "ay", N(certificates), "bs", N(changed) N(warning)),
        METHOD("CaRoll", "xs", N(within) N(key_uri), "b", N(changed)),
        METHOD("CaShow", "", , "aa{sv}a{sv}", N(generations) N(server)),
        METHOD("CaCrl", "u", N(generation), "ay", N(crl)),
        METHOD("CaAnchors", "", , "ay", N(certificates)),
        METHOD("Backup", "hs", N(pipe) N(recipient), "xstt", N(made) N(recipient) N(bytes) N(plain_bytes)),
        METHOD("BackupKept", "x", N(made), "b", N(changed)),
        METHOD("ListMissing", "su", N(after) N(limit), "aa{sv}sx", N(devices) N(next) N(restored)),
        SD_BUS_VTABLE_END,
};
