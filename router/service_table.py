"""Which services this cloudlet has, which VIs may join them, and how long to wait for one.

Settings list services, and so does the table of the cloudlet controller; where settings allow it, a
VI of another may come too, and its service stays as long as it has one. A service without a VI has
a grace time. Source: design, section 6, step 4; docs/decisions/0013.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from packetcloud.chunk.names import SID
from packetcloud.router.attachment import Attachment
from packetcloud.router.cloudlet_pool import CloudletService
from packetcloud.router.cloudlet_table import ItemReason, ServiceEntry
from packetcloud.router.service_pool import VI, Service
from packetcloud.router.settings import RouterSettings

MAX_UNLISTED_COUNT = 1024
"""Services that no list names, with a VI or in their grace time: as many as neighbours. Each is
about 10 KiB, most of it histograms."""


class ServiceTable:
    """The services of this cloudlet by SID."""

    def __init__(self, settings: RouterSettings, now: float) -> None:
        self.by_sid: dict[bytes, Service] = {}
        self.next_due_s = math.inf
        """When the next grace time ends."""
        self._without_vi: dict[Service, None] = {}
        self._vi_count = 0
        self.settings = settings
        self.configure(settings, now)

    def configure(self, settings: RouterSettings, now: float) -> None:
        """Take new settings; the VIs of a service that is no longer allowed are sent away.

        Chunks that have a task with such a VI, or wait for one, end by the fail policy.
        """
        self.settings = settings
        listed = {one.sid.value: one for one in settings.services}
        for sid, one in listed.items():
            service = self.by_sid.get(sid)
            if service is None or isinstance(service, CloudletService):
                # One that the cloudlet's table had goes on until its VIs are gone.
                service = self.by_sid[sid] = Service(one, True, now)
                self._await_vi(service)
            service.is_listed = True
            service.configure(one)
        for sid, service in list(self.by_sid.items()):
            if sid in listed or isinstance(service, CloudletService):
                continue
            service.is_listed = False
            if settings.unlisted_services is not None:
                service.configure(settings.unlisted_services.for_unlisted(service.sid))
                continue
            self._send_away(service, "the service is no longer configured here", now)

    def _send_away(self, service: Service, why: str, now: float) -> None:
        service.is_listed = False
        service.configure(replace(service.settings, grace_s=0.0))
        service.grace_ends_at = now
        for vi in service.vis:
            vi.is_draining = True
            vi.neighbour.close(why)
        self._await_vi(service)

    def why_not_in_table(self, sid: SID, name: str) -> tuple[ItemReason, str] | None:
        """Return why the cloudlet's table cannot have a SID and a name; None: it can."""
        for one in self.settings.services:
            if one.sid == sid:
                text = f"[[service]] {one.name} of this router's config has the SID; take it out"
                return ItemReason.OWN_SERVICE, text
            if one.name == name:
                return ItemReason.NAME_IN_USE, f"[[service]] {one.sid} is called {name} already"
        service = self.by_sid.get(sid.value)
        if service is None or isinstance(service, CloudletService):
            return None
        if service.vis or service.waiting:
            text = "VIs that the table does not list are attached here; stop them, then try again"
            return ItemReason.STILL_HERE, text
        return None

    def install(self, entries: Mapping[bytes, ServiceEntry], now: float) -> list[CloudletService]:
        """Have the services of the cloudlet's table from now on; return those that stay or come.

        The VIs of one that is not there any more are sent away; chunks with a task there, or that
        wait, end by the fail policy.
        """
        for sid, service in list(self.by_sid.items()):
            if isinstance(service, CloudletService) and sid not in entries and service.is_listed:
                service.retire(now)
                self._await_vi(service)
        installed = []
        for sid, entry in entries.items():
            known = self.by_sid.get(sid)
            if isinstance(known, CloudletService):
                one = known
                if not one.is_listed:
                    one.is_listed = True
                    one.grace_ends_at = now + entry.settings.grace_s
                one.enlist(entry, now)
            else:
                if known is not None:
                    self._send_away(known, "its service is of the cloudlet's table now", now)
                one = self.by_sid[sid] = CloudletService(entry, now)
            self._await_if_none(one)
            installed.append(one)
        return installed

    def hosted(self, sid: SID) -> Service | None:
        """Return the service if it belongs to this cloudlet, whether or not a VI is attached."""
        return self.by_sid.get(sid.value)

    def reason_to_refuse(self, sid: SID, instance: int) -> str | None:
        """Return why no further VI of `sid` may attach, None if it may."""
        service = self.by_sid.get(sid.value)
        if (service is None or not service.is_listed) and self.settings.unlisted_services is None:
            return f"service {sid} is not configured at this router"
        if service is not None:
            return service.reason_to_refuse(instance)
        listed_count = sum(one.is_listed for one in self.by_sid.values())
        if len(self.by_sid) >= listed_count + MAX_UNLISTED_COUNT:
            return f"this router has {MAX_UNLISTED_COUNT} services that no list names already"
        return None

    def attach(self, attachment: Attachment, now: float) -> Service | None:
        """Take in a new VI and return its service; None, and sent away: it may not serve here."""
        sid = SID(attachment.guid.value)
        refusal = self.reason_to_refuse(sid, attachment.neighbour.instance)
        if refusal is not None:
            attachment.neighbour.close(refusal)
            return None
        service = self.by_sid.get(sid.value)
        if service is None:
            template = self.settings.unlisted_services
            assert template is not None, "reason_to_refuse lets no other service pass"
            service = self.by_sid[sid.value] = Service(template.for_unlisted(sid), False, now)
        self._vi_count += 1
        attachment.vi = service.attach(attachment, self._vi_count)
        self._await_if_none(service)
        return service

    def detach(self, vi: VI, now: float) -> None:
        """A VI is gone; the last one leaves its service a grace time."""
        vi.service.detach(vi, now)
        self._await_if_none(vi.service)

    def drain(self, vi: VI, now: float) -> None:
        """A VI takes no more tasks; the last one leaves its service a grace time."""
        vi.service.drain(vi, now)
        self._await_if_none(vi.service)

    def graces_over(self, now: float) -> list[Service]:
        """Return the services whose grace time has ended since the last call."""
        over = [service for service in self._without_vi if now >= service.grace_ends_at]
        for service in over:
            del self._without_vi[service]
        self._set_next_due()
        return over

    def drop_unused(self, service: Service) -> bool:
        """Forget a service that neither the settings nor a VI keep; tell whether that was so."""
        if service.is_listed or service.vis:
            return False
        if self.by_sid.get(service.sid.value) is service:
            del self.by_sid[service.sid.value]
        return True

    def _await_if_none(self, service: Service) -> None:
        if not service.has_vi:
            self._await_vi(service)
        elif self._without_vi.pop(service, 0) is None:
            self._set_next_due()

    def _await_vi(self, service: Service) -> None:
        self._without_vi[service] = None
        self._set_next_due()

    def _set_next_due(self) -> None:
        ends = (service.grace_ends_at for service in self._without_vi)
        self.next_due_s = min(ends, default=math.inf)
