"""NTLM's accepting side with the names of a Windows host.

pyspnego takes those in its challenge from this machine's hostname, and has no option for others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from spnego._context import GSSMech
from spnego._negotiate import NegotiateProxy
from spnego._ntlm import NTLMProxy
from spnego._ntlm_raw.messages import AvId, Challenge, NegotiateFlags, TargetInfo


@dataclass(frozen=True)
class Names:
    """The machine's, and its domain's where it is in one: NetBIOS names."""

    machine: str
    domain: str | None = None

    @property
    def dns_domain(self) -> str | None:
        """`corp.example` for CORP."""
        return f"{self.domain.lower()}.example" if self.domain else None

    @property
    def target(self) -> str:
        """The realm that the host authenticates for: a machine without a domain is its own."""
        return self.domain or self.machine

    def pairs(self) -> dict[AvId, str]:
        """[MS-NLMP] 2.2.2.1, in the order of Windows; without a domain all of them are the machine."""
        inside = self.dns_domain
        pairs = {
            AvId.nb_domain_name: self.target,
            AvId.nb_computer_name: self.machine,
            AvId.dns_domain_name: inside or self.machine,
            AvId.dns_computer_name: f"{self.machine.lower()}.{inside}" if inside else self.machine,
        }
        return pairs | ({AvId.dns_tree_name: inside} if inside else {})


class NtlmAcceptor(NTLMProxy):
    """Sends the host's own names in the challenge, and keeps that for the check of the client's MIC."""

    def __init__(self, names: Names, **options: Any) -> None:
        super().__init__(usage="accept", **options)
        self._names = names

    def _step_accept_negotiate(self, token: bytes) -> bytes:
        super()._step_accept_negotiate(token)
        self._temp_challenge = _named(self._temp_challenge, self._names)
        return self._temp_challenge.pack()


class NegotiateAcceptor(NegotiateProxy):
    """SPNEGO, with that NTLM inside."""

    def __init__(self, names: Names, **options: Any) -> None:
        super().__init__(usage="accept", **options)
        self._names = names

    def _rebuild_context_list(self, *arguments: Any, **options: Any) -> list[str]:
        mechanisms = super()._rebuild_context_list(*arguments, **options)
        if GSSMech.ntlm in self._context_list:
            inner = NtlmAcceptor(self._names, channel_bindings=self.channel_bindings)
            inner._is_wrapped = True
            self._context_list[GSSMech.ntlm] = (inner, None)
        return mechanisms


def _named(challenge: Challenge, names: Names) -> Challenge:
    flags = challenge.flags
    if names.domain:
        flags = flags & ~NegotiateFlags.target_type_server | NegotiateFlags.target_type_domain
    information = TargetInfo(names.pairs())
    information[AvId.timestamp] = challenge.target_info[AvId.timestamp]
    return Challenge(
        flags,
        challenge.server_challenge,
        target_name=names.target,
        target_info=information,
        version=challenge.version,
    )
