"""The guest's token: what renews it inside, with which other token, and when either is renewed from here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vmproxy.model import names
from vmproxy.model.drift import ABSENT
from vmproxy.model.names import CA, CREDENTIAL, RENEW, RENEWAL, TIMER_UNIT, TOKEN_UNIT, UNITS
from vmproxy.model.seen import ClusterSeen, GuestSeen, TokenSeen
from vmproxy.model.steps import Follow, GiveRenewal, ManagedFile, RenewToken
from vmproxy.model.topology import Vm
from vmproxy.util import assets

_GRANTED = 0.9
"""Of what was asked; a token that was renewed is not compared to the second."""
_UNAUTHORIZED = 401
_REFUSED = "refused by the API server"
_TIMER_FAILED = 0.1
"""Below this part of its life left, the guest's own timer has failed, and the token is renewed from here."""
_PRIVATE = ("0600", "root", "root")


def files(vm: Vm, cluster: ClusterSeen, *, ttl: int) -> dict[str, ManagedFile]:
    """`ttl`: seconds that a token is asked to live; the guest renews it at half of those that it got."""
    credential: dict[str, object] = {
        "server": cluster.server,
        "ca": CA,
        "namespace": names.NAMESPACE,
        "account": vm.account,
        "ttl": ttl,
    }
    if cluster.tls_server_name:
        credential["tlsServerName"] = cluster.tls_server_name
    timer = assets.text(f"guest/{TIMER_UNIT}")
    return {
        CREDENTIAL: ManagedFile.of(json.dumps(credential, indent=2) + "\n", follow=Follow(renew=True)),
        RENEW: ManagedFile.of(assets.text("guest/renew.py"), mode="0755"),
        f"{UNITS}/{TOKEN_UNIT}": ManagedFile.of(
            assets.text(f"guest/{TOKEN_UNIT}"), follow=Follow(reload=True)
        ),
        f"{UNITS}/{TIMER_UNIT}": ManagedFile.of(timer, follow=Follow(restart=(TIMER_UNIT,), reload=True)),
    }


@dataclass(frozen=True)
class Wanted:
    """`subject` and `uid` are those of kube-proxy's token; `uid` None: there is no account yet. `renewal` is
    the SHA-256 of the token that renews it; None: it is not known before its Secret is made."""

    subject: str
    uid: str | None
    renewal: str | None


def wanted(vm: Vm, cluster: ClusterSeen) -> Wanted:
    return Wanted(
        subject=f"system:serviceaccount:{names.NAMESPACE}:{vm.account}",
        uid=cluster.uid(vm.account),
        renewal=cluster.renewal(vm.account),
    )


def plan(want: Wanted, seen: GuestSeen, follows: Sequence[Follow]) -> Iterator[GiveRenewal | RenewToken]:
    """Where the one that renews is refused, though it is as in its Secret, the signing key was replaced, and
    with it the other is refused, which is tried only where kube-proxy has its rules."""
    renewal = tuple(_renewal(want.renewal, seen))
    yield from renewal
    key_replaced = refused(seen) or GiveRenewal(_REFUSED) in renewal
    why = _trouble(want, seen.token, now=seen.now) or (_REFUSED if key_replaced else None)
    if why is not None and not any(follow.renew for follow in follows):
        yield RenewToken(why)


def warnings(seen: GuestSeen, *, ttl: int) -> Iterator[str]:
    """The API server may grant less than it is asked for (--service-account-max-token-expiration)."""
    life = seen.token.expires - seen.token.issued if seen.token else ttl
    if life < _GRANTED * ttl:
        yield (
            f"the API server grants tokens of {life / 3600:.3g} h where proxy.tokenTTL asks for "
            f"{ttl / 3600:.3g} h: set proxy.tokenTTL to what it grants"
        )


def refused(seen: GuestSeen) -> bool:
    """Its claims may be good while the API server does not take it: its signing key was replaced."""
    return seen.canary is not None and seen.canary.status == _UNAUTHORIZED


def _renewal(wanted: str | None, seen: GuestSeen) -> Iterator[GiveRenewal]:
    """`wanted` is a SHA-256; None: it is not known yet."""
    if wanted is None:
        return
    there = seen.files.get(RENEWAL)
    if there is None:
        yield GiveRenewal(ABSENT)
    elif there.sha256 != wanted:
        yield GiveRenewal("another one")
    elif (there.mode, there.owner, there.group) != _PRIVATE:
        yield GiveRenewal(f"mode {there.mode}, of {there.owner}:{there.group}")
    elif seen.renewal == _UNAUTHORIZED:
        yield GiveRenewal(_REFUSED)


def _trouble(want: Wanted, token: TokenSeen | None, *, now: float) -> str | None:
    if token is None:
        return ABSENT
    if token.subject != want.subject:
        return "of another account"
    if token.uid != want.uid:
        return "revoked"
    left = token.expires - now
    if left <= 0:
        return "expired"
    if left < _TIMER_FAILED * (token.expires - token.issued):
        return "about to expire"
    return None
