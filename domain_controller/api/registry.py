"""Endpoints of the registry: tenants and their keys, cloudlets, VI types, services, rules."""

from __future__ import annotations

import asyncio
import json

from fastapi import APIRouter, Response

from packetcloud.chunk.names import GUID, SID
from packetcloud.domain_controller.api import answered as say
from packetcloud.domain_controller.api import asked as ask
from packetcloud.domain_controller.api import changes as to
from packetcloud.domain_controller.api.endpoints import (
    PROBLEMS,
    Surroundings,
    TheCaller,
    TheKey,
    ThePage,
)
from packetcloud.domain_controller.api.fields import Hex20, Identifier, Name
from packetcloud.domain_controller.channel.frames import MAX_RULES_BYTES
from packetcloud.domain_controller.core.principals import Role
from packetcloud.domain_controller.errors import RuleDocumentError
from packetcloud.domain_controller.rule_documents import prove_rules
from packetcloud.domain_controller.sid_proof import SidProof


def registry_routes(around: Surroundings) -> APIRouter:
    """Return the endpoints."""
    router = APIRouter(prefix="/v1", responses=PROBLEMS)
    _tenants(router, around)
    _cloudlets(router, around)
    _services(router, around)
    _rules(router, around)
    return router


def _tenants(router: APIRouter, around: Surroundings) -> None:
    state = around.state

    @router.get("/tenants", tags=["registry"])
    async def list_tenants(caller: TheCaller, page: ThePage) -> say.TenantPage:
        """List the tenants; a tenant sees itself."""
        return await around.read(state.tenants, caller.owner, page)

    @router.post("/tenants", status_code=201, response_model=say.TenantInfo, tags=["registry"])
    async def add_tenant(caller: TheCaller, key: TheKey, new: ask.NewTenant) -> Response:
        """Register a tenant."""
        return await around.change(to.AddTenant(new.name, new.title), caller, key)

    @router.get("/tenants/{name}", tags=["registry"])
    async def show_tenant(caller: TheCaller, name: Name) -> say.TenantInfo:
        """Return one tenant."""
        return await around.read(state.tenant, caller.owner, name)

    @router.patch("/tenants/{name}", response_model=say.TenantInfo, tags=["registry"])
    async def set_tenant(caller: TheCaller, name: Name, change: ask.TenantChange) -> Response:
        """Suspend a tenant, or not any more: one that is suspended asks for nothing new."""
        return await around.change(to.SetTenantOpen(name, change.is_open), caller)

    @router.get("/tenants/{name}/keys", tags=["registry"])
    async def list_keys(caller: TheCaller, name: Name) -> say.KeyList:
        """List the keys of a tenant."""
        return await around.read(state.keys, caller.owner, name)

    @router.post(
        "/tenants/{name}/keys", status_code=201, response_model=say.KeyInfo, tags=["registry"]
    )
    async def add_key(caller: TheCaller, name: Name, key: TheKey, new: ask.NewKey) -> Response:
        """Let one more key sign for a tenant."""
        change = to.AddKey(name, bytes.fromhex(new.public_key), new.until_ms)
        return await around.change(change, caller, key)

    @router.delete("/tenants/{name}/keys/{key_id}", response_model=say.KeyInfo, tags=["registry"])
    async def revoke_key(caller: TheCaller, name: Name, key_id: Hex20) -> Response:
        """Let a key sign no more."""
        return await around.change(to.RevokeKey(name, key_id), caller)


def _cloudlets(router: APIRouter, around: Surroundings) -> None:
    state = around.state

    @router.get("/cloudlets", tags=["cloudlets"])
    async def list_cloudlets(caller: TheCaller) -> say.CloudletList:
        """List the cloudlets and what they last said of themselves."""
        found = await around.read(state.cloudlets, around.clock_ms())
        return say.CloudletList(cloudlets=[_shown(one, caller) for one in found.cloudlets])

    @router.post("/cloudlets", status_code=201, response_model=say.CloudletInfo, tags=["cloudlets"])
    async def add_cloudlet(caller: TheCaller, key: TheKey, new: ask.NewCloudlet) -> Response:
        """Admit a cloudlet: its controller may dial in with this key."""
        public_key = bytes.fromhex(new.public_key)
        change = to.AddCloudlet(new.name, new.region, public_key, new.isp_share_permille)
        return await around.change(change, caller, key)

    @router.get("/cloudlets/{name}", tags=["cloudlets"])
    async def show_cloudlet(caller: TheCaller, name: Name) -> say.CloudletInfo:
        """Return one cloudlet."""
        return _shown(await around.read(state.cloudlet, name, around.clock_ms()), caller)

    @router.patch("/cloudlets/{name}", response_model=say.CloudletInfo, tags=["cloudlets"])
    async def set_cloudlet(caller: TheCaller, name: Name, change: ask.CloudletChange) -> Response:
        """Let a cloudlet get no new reservations, or let it again."""
        return await around.change(to.SetCloudletOpen(name, change.is_open), caller)

    @router.get("/cloudlets/{name}/keys", tags=["cloudlets"])
    async def list_cloudlet_keys(name: Name) -> say.KeyList:
        """List the keys with which a cloudlet's controller may dial in."""
        return await around.read(state.cloudlet_keys, name)

    @router.post(
        "/cloudlets/{name}/keys", status_code=201, response_model=say.KeyInfo, tags=["cloudlets"]
    )
    async def add_cloudlet_key(
        caller: TheCaller, name: Name, key: TheKey, new: ask.NewKey
    ) -> Response:
        """Let a cloudlet's controller dial in with one more key."""
        public_key = bytes.fromhex(new.public_key)
        change = to.AddKey(name, public_key, new.until_ms, Role.CLOUDLET)
        return await around.change(change, caller, key)

    @router.delete(
        "/cloudlets/{name}/keys/{key_id}", response_model=say.KeyInfo, tags=["cloudlets"]
    )
    async def revoke_cloudlet_key(caller: TheCaller, name: Name, key_id: Hex20) -> Response:
        """Let a key open no channel any more; one that it opened ends within seconds."""
        return await around.change(to.RevokeKey(name, key_id, Role.CLOUDLET), caller)

    @router.get("/vi-types", tags=["cloudlets"])
    async def list_vi_types() -> say.ViTypeList:
        """List the VI types."""
        return await around.read(state.vi_types)

    @router.put("/vi-types/{name}", response_model=say.ViTypeInfo, tags=["cloudlets"])
    async def set_vi_type(caller: TheCaller, name: Name, sizes: ask.ViTypeSizes) -> Response:
        """Set what a VI type is; what is reserved already keeps what it was."""
        return await around.change(to.SetViType(name, sizes), caller)


def _services(router: APIRouter, around: Surroundings) -> None:
    state = around.state

    @router.get("/services", tags=["services"])
    async def list_services(caller: TheCaller, page: ThePage) -> say.ServicePage:
        """List services."""
        return await around.read(state.services, caller.owner, page)

    @router.post("/services", status_code=201, response_model=say.ServiceInfo, tags=["services"])
    async def add_service(caller: TheCaller, key: TheKey, new: ask.NewService) -> Response:
        """Register a service whose SID is proven by the SID's own key."""
        given = new.proof
        proof = SidProof(
            around.domain,
            caller.name,
            given.until_ms,
            bytes.fromhex(given.public_key),
            bytes.fromhex(given.signature),
        )
        proof.check(SID.from_hex(new.sid), around.clock_ms())
        change = to.AddService(caller.name, new.name, new.sid, new.image, given.until_ms)
        return await around.change(change, caller, key)

    @router.get("/services/{sid}", tags=["services"])
    async def show_service(caller: TheCaller, sid: Hex20) -> say.ServiceInfo:
        """Return one service."""
        return await around.read(state.service, caller.owner, sid)

    @router.delete("/services/{sid}", response_model=say.ServiceInfo, tags=["services"])
    async def remove_service(caller: TheCaller, sid: Hex20) -> Response:
        """Remove a service that nothing is reserved for."""
        return await around.change(to.RemoveService(sid), caller)


def _rules(router: APIRouter, around: Surroundings) -> None:
    state = around.state

    @router.get("/rules", tags=["rules"])
    async def list_rules(caller: TheCaller, page: ThePage) -> say.RulesPage:
        """List documents of rules."""
        return await around.read(state.rules, caller.owner, page, around.clock_ms())

    @router.post("/rules", status_code=201, response_model=say.RulesInfo, tags=["rules"])
    async def add_rules(caller: TheCaller, key: TheKey, new: ask.NewRules) -> Response:
        """Give a signed document of rules, whose destinations are proven, to routers.

        It is a whole set (`replace = true`), and takes the place of an older one of the same signer
        and name; without any rule it withdraws the set, wherever it is.
        """
        is_own = caller.principal.role is Role.ISP
        proven = await asyncio.to_thread(
            prove_rules, new.document, is_own=is_own, now_ms=around.clock_ms()
        )
        if not proven.is_whole:
            raise RuleDocumentError(
                "document: head: a domain gives routers whole sets; write replace = true"
            )
        if len(json.dumps(new.document, ensure_ascii=False).encode()) > MAX_RULES_BYTES:
            raise RuleDocumentError(
                f"document: over {MAX_RULES_BYTES} bytes as JSON; write several sets"
            )
        change = to.AddRules(
            owner=caller.name,
            set_name=proven.set_name,
            serial=proven.serial,
            signer=GUID.from_public_key(proven.signer).hex,
            items_count=proven.items_count,
            sid=proven.service.hex(),
            document=new.document,
            digest=proven.digest,
            cloudlets=new.cloudlets,
            regions=new.regions,
            rules_count=proven.rules_count,
            until_ms=proven.until_ms,
        )
        return await around.change(change, caller, key)

    @router.get("/rules/{rules_id}", tags=["rules"])
    async def show_rules(caller: TheCaller, rules_id: Identifier) -> say.RulesDetail:
        """Return a document of rules, and how far it is at each cloudlet."""
        return await around.read(state.rules_detail, caller.owner, rules_id, around.clock_ms())


def _shown(info: say.CloudletInfo, caller: TheCaller) -> say.CloudletInfo:
    """Leave out what only those may see who see everything."""
    return info if caller.owner is None else info.model_copy(update={"nodes": []})
