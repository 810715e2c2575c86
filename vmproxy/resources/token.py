"""The guest's token: what renews it inside, and when it is renewed from here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from vmproxy.model import names
from vmproxy.model.drift import ABSENT
from vmproxy.model.names import CA, CREDENTIAL, RENEW, TIMER_UNIT, TOKEN_UNIT, UNITS
from vmproxy.model.seen import ClusterSeen, GuestSeen, TokenSeen
from vmproxy.model.steps import Follow, ManagedFile, RenewToken
from vmproxy.model.topology import Vm
from vmproxy.util import assets

_GRANTED = 0.9
"""Of what was asked; a token that was renewed is not compared to the second."""
_UNAUTHORIZED = 401
_REFUSED = "refused by the API server"
_TIMER_FAILED = 0.1
"""Below this part of its life left, the guest's own timer has failed, and the token is renewed from here."""


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


def plan(subject: str, uid: str | None, seen: GuestSeen, follows: Sequence[Follow]) -> Iterator[RenewToken]:
    """`subject` and `uid` are the wanted token's; `uid` None: there is no account yet."""
    why = _trouble(subject, uid, seen.token, now=seen.now) or (_REFUSED if refused(seen) else None)
    if why is not None and not any(follow.renew for follow in follows):
        yield RenewToken(why)


def warnings(seen: GuestSeen, *, ttl: int) -> Iterator[str]:
    """The API server may grant less than it is asked for (--service-account-max-token-expiration)."""
    life = seen.token.expires - seen.token.issued if seen.token else ttl
    if life < _GRANTED * ttl:
        yield (
            f"the API server grants tokens of {life / 3600:.3g} h where proxy.tokenTTL asks for "
            f"{ttl / 3600:.3g} h: a VM that is off for longer needs an apply"
        )


def refused(seen: GuestSeen) -> bool:
    """Its claims may be good while the API server does not take it: its signing key was replaced."""
    return seen.canary is not None and seen.canary.status == _UNAUTHORIZED


def _trouble(subject: str, uid: str | None, token: TokenSeen | None, *, now: float) -> str | None:
    if token is None:
        return ABSENT
    if token.subject != subject:
        return "of another account"
    if token.uid != uid:
        return "revoked"
    left = token.expires - now
    if left <= 0:
        return "expired"
    if left < _TIMER_FAILED * (token.expires - token.issued):
        return "about to expire"
    return None
