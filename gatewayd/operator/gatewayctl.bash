# SPDX-License-Identifier: Apache-2.0
# bash completion for gatewayctl

_gatewayctl_ids() {
        gatewayctl --json ${control:+--control "$control"} device list 2>/dev/null |
                sed -n 's/^ *"id": "\([^"]*\)",*$/\1/p'
}

_gatewayctl() {
        local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} control= i words=()

        for ((i = 1; i < COMP_CWORD; i++)); do
                case ${COMP_WORDS[i]} in
                --control)
                        control=${COMP_WORDS[++i]}
                        ;;
                -*) ;;
                *)
                        words+=("${COMP_WORDS[i]}")
                        ;;
                esac
        done
        COMPREPLY=()
        case $prev in
        --control | --attestation-key)
                COMPREPLY=($(compgen -f -- "$cur"))
                return
                ;;
        --state)
                COMPREPLY=($(compgen -W "registered operational restricted quarantined revoked needs-visit" -- "$cur"))
                return
                ;;
        --tier)
                COMPREPLY=($(compgen -W "none affirming warning contraindicated" -- "$cur"))
                return
                ;;
        --key)
                if [[ ${words[0]} == ca ]]; then
                        COMPREPLY=($(compgen -W "store: file: pkcs11: handle:" -- "$cur"))
                else
                        COMPREPLY=($(compgen -f -- "$cur"))
                fi
                return
                ;;
        --format)
                COMPREPLY=($(compgen -W "csv json" -- "$cur"))
                return
                ;;
        --device)
                COMPREPLY=($(compgen -W "$(_gatewayctl_ids)" -- "$cur"))
                return
                ;;
        --store)
                COMPREPLY=($(compgen -f -- "$cur"))
                return
                ;;
        --recipient | --profile | --psk | --idevid | --for | --since | --reason | -n | --within | --generation)
                return
                ;;
        esac

        local options="--json --control --help --version"
        case ${words[*]} in
        "")
                COMPREPLY=($(compgen -W "status doctor keys device rotate pause resume audit relay sealing ca backup restore recover missing $options" -- "$cur"))
                ;;
        device)
                COMPREPLY=($(compgen -W "list show import add remove revoke reset release" -- "$cur"))
                ;;
        relay)
                COMPREPLY=($(compgen -W "now" -- "$cur"))
                ;;
        ca)
                COMPREPLY=($(compgen -W "show init csr import roll crl" -- "$cur"))
                ;;
        backup*)
                COMPREPLY=($(compgen -f -W "--recipient" -- "$cur"))
                ;;
        restore*)
                COMPREPLY=($(compgen -f -W "--key --store --force" -- "$cur"))
                ;;
        recover*)
                COMPREPLY=($(compgen -W "--key --store" -- "$cur"))
                ;;
        "ca show"*)
                COMPREPLY=($(compgen -W "--pem $options" -- "$cur"))
                ;;
        "ca init"*)
                COMPREPLY=($(compgen -W "--key" -- "$cur"))
                ;;
        "ca csr"*)
                COMPREPLY=($(compgen -W "--key --again" -- "$cur"))
                ;;
        "ca import"*)
                COMPREPLY=($(compgen -f -- "$cur"))
                ;;
        "ca roll"*)
                COMPREPLY=($(compgen -W "--within --key" -- "$cur"))
                ;;
        "ca crl"*)
                COMPREPLY=($(compgen -W "--generation" -- "$cur"))
                ;;
        sealing)
                COMPREPLY=($(compgen -W "recovery rotate" -- "$cur"))
                ;;
        "sealing rotate"*)
                COMPREPLY=($(compgen -f -W "--key --credential --with-key= --file" -- "$cur"))
                ;;
        "device list"*)
                COMPREPLY=($(compgen -W "--state --profile --tier $options" -- "$cur"))
                ;;
        "device import"*)
                COMPREPLY=($(compgen -f -W "--dry-run --format" -- "$cur"))
                ;;
        "device add"*)
                COMPREPLY=($(compgen -W "--profile --psk --idevid --attestation-key" -- "$cur"))
                ;;
        "device show" | "device remove" | "device release")
                COMPREPLY=($(compgen -W "$(_gatewayctl_ids)" -- "$cur"))
                ;;
        "device revoke"*)
                COMPREPLY=($(compgen -W "--reason $([[ ${#words[@]} == 2 ]] && _gatewayctl_ids)" -- "$cur"))
                ;;
        "device reset"*)
                COMPREPLY=($(compgen -W "--for $([[ ${#words[@]} == 2 ]] && _gatewayctl_ids)" -- "$cur"))
                ;;
        rotate*)
                COMPREPLY=($(compgen -W "all --now --within --device --profile --compromised --since $([[ ${#words[@]} == 1 ]] && _gatewayctl_ids)" -- "$cur"))
                ;;
        keys*)
                COMPREPLY=($(compgen -W "--devices" -- "$cur"))
                ;;
        pause*)
                COMPREPLY=($(compgen -W "all --for" -- "$cur"))
                ;;
        audit*)
                COMPREPLY=($(compgen -W "--device -n --verify" -- "$cur"))
                ;;
        esac
}
complete -F _gatewayctl gatewayctl
