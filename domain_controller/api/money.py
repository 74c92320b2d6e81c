"""Endpoints about money: usage, bills, price lists."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from packetcloud.domain_controller.api import answered as say
from packetcloud.domain_controller.api.asked import NewBill
from packetcloud.domain_controller.api.changes import CloseBill
from packetcloud.domain_controller.api.endpoints import (
    PROBLEMS,
    Surroundings,
    TheCaller,
    TheKey,
    ThePage,
)
from packetcloud.domain_controller.api.fields import BillNumber, Identifier, Name

_VERSION = Path(ge=1, le=(1 << 31) - 1)


def money_routes(around: Surroundings) -> APIRouter:
    """Return the endpoints."""
    router = APIRouter(prefix="/v1", responses=PROBLEMS, tags=["money"])
    state = around.state

    @router.get("/usage")
    async def usage(
        caller: TheCaller,
        page: ThePage,
        reservation: Annotated[Identifier | None, Query()] = None,
        bill: Annotated[BillNumber | None, Query()] = None,
    ) -> say.UsagePage:
        """List usage records as the cloudlets made them; with `bill`, those on this one."""
        return await around.read(state.usage, caller.owner, reservation, bill, page)

    @router.get("/bills")
    async def bills(caller: TheCaller, page: ThePage) -> say.BillPage:
        """List bills, the newest first."""
        return await around.read(state.bills, caller.owner, page)

    @router.post("/bills", status_code=201, response_model=say.BillInfo)
    async def close_bill(caller: TheCaller, key: TheKey, new: NewBill) -> Response:
        """Close a bill of all that a tenant used until a time and that is on no bill yet."""
        return await around.change(CloseBill(new.tenant, new.end_ms), caller, key)

    @router.get("/bills/{bill_id}")
    async def bill(caller: TheCaller, bill_id: Identifier) -> say.BillInfo:
        """Return a bill with all that it is made of."""
        return await around.read(state.bill, caller.owner, bill_id)

    @router.get("/price-lists/{name}/{version}")
    async def price_list(name: Name, version: Annotated[int, _VERSION]) -> say.PriceListInfo:
        """Return a version of a price list: bills are computed again with it."""
        return await around.read(state.price_list, name, version)

    return router
