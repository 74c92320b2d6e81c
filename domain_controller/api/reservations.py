"""Endpoints about places: quotes, the calendar, reservations, operations."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

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
from packetcloud.domain_controller.api.feed import Feed
from packetcloud.domain_controller.api.fields import EventNumber, Identifier, WaitS
from packetcloud.domain_controller.core.principals import Role

_STATES = Query(alias="state", max_length=9)


def reservation_routes(around: Surroundings, feed: Feed) -> APIRouter:
    """Return the endpoints.

    Args:
        feed: wakes who waits for a change.
    """
    router = APIRouter(prefix="/v1", responses=PROBLEMS)
    _asking(router, around)
    _reservations(router, around, feed)
    _operations(router, around, feed)
    return router


def _asking(router: APIRouter, around: Surroundings) -> None:
    state = around.state

    @router.post("/quotes", tags=["reservations"])
    async def quote(caller: TheCaller, wish: ask.WishAsked) -> say.QuoteInfo:
        """Say for how much something can be had now. Nothing is held by it."""
        return await around.read(state.quote, caller.name, wish.to_wish(), around.clock_ms())

    @router.post("/calendar", tags=["reservations"])
    async def when(caller: TheCaller, asked: ask.WhenAsked) -> say.WhenInfo:
        """Say when something would fit that begins no earlier than its slot."""
        wish = asked.wish.to_wish()
        return await around.read(state.when, caller.name, wish, asked.until_ms, around.clock_ms())

    @router.post("/advice", tags=["reservations"])
    async def ways(caller: TheCaller, asked: ask.AdviceAsked) -> say.WaysInfo:
        """Say which VI types carry a load, by what was measured of each, the cheapest first."""
        return await around.read(state.ways, asked, around.clock_ms())


def _reservations(router: APIRouter, around: Surroundings, feed: Feed) -> None:
    state = around.state

    @router.get("/reservations", tags=["reservations"])
    async def list_reservations(
        caller: TheCaller,
        page: ThePage,
        states: Annotated[list[say.ReservationState] | None, _STATES] = None,
    ) -> say.ReservationPage:
        """List reservations, the newest first."""
        return await around.read(state.reservations, caller.owner, states or [], page)

    @router.post(
        "/reservations", status_code=202, response_model=say.OperationInfo, tags=["reservations"]
    )
    async def reserve(caller: TheCaller, key: TheKey, wish: ask.WishAsked) -> Response:
        """Reserve places. The operation ends when a cloudlet confirmed, or none could."""
        is_third_party = caller.principal.role is Role.TENANT
        change = to.Reserve(caller.name, is_third_party, wish.to_wish())
        return await around.change(change, caller, key)

    @router.get("/reservations/{reservation_id}", tags=["reservations"])
    async def show_reservation(
        caller: TheCaller,
        reservation_id: Identifier,
        wait_s: Annotated[WaitS, Query()] = 0,
        beyond: Annotated[EventNumber, Query()] = 0,
    ) -> say.ReservationInfo:
        """Return a reservation; with `wait_s`, as soon as its version is larger than `beyond`."""
        return await feed.wait(
            lambda: state.reservation(caller.owner, reservation_id),
            lambda info: info.version > beyond,
            wait_s,
        )

    @router.get("/reservations/{reservation_id}/terms", tags=["reservations"])
    async def show_terms(caller: TheCaller, reservation_id: Identifier) -> say.TermsInfo:
        """Return all prices that a reservation was offered: bills are computed again with them."""
        return await around.read(state.terms, caller.owner, reservation_id)

    @router.post(
        "/reservations/{reservation_id}/extend",
        status_code=202,
        response_model=say.OperationInfo,
        tags=["reservations"],
    )
    async def extend(
        caller: TheCaller, reservation_id: Identifier, key: TheKey, asked: ask.ExtensionAsked
    ) -> Response:
        """Let a reservation end later, where there is room."""
        return await around.change(to.Extend(reservation_id, asked.end_ms), caller, key)

    @router.post(
        "/reservations/{reservation_id}/resize",
        status_code=202,
        response_model=say.OperationInfo,
        tags=["reservations"],
    )
    async def resize(
        caller: TheCaller, reservation_id: Identifier, key: TheKey, asked: ask.ResizeAsked
    ) -> Response:
        """Let a reservation have more VIs, or fewer, where there is room."""
        return await around.change(to.Resize(reservation_id, asked.count), caller, key)

    @router.post(
        "/reservations/{reservation_id}/cancel",
        status_code=202,
        response_model=say.OperationInfo,
        tags=["reservations"],
    )
    async def cancel(caller: TheCaller, reservation_id: Identifier, key: TheKey) -> Response:
        """Give a reservation back."""
        return await around.change(to.CancelReservation(reservation_id), caller, key)


def _operations(router: APIRouter, around: Surroundings, feed: Feed) -> None:
    state = around.state

    @router.get("/operations/{operation_id}", tags=["reservations"])
    async def show_operation(
        caller: TheCaller, operation_id: Identifier, wait_s: Annotated[WaitS, Query()] = 0
    ) -> say.OperationInfo:
        """Return how an operation is; with `wait_s`, wait so long for its end."""
        return await feed.wait(
            lambda: state.operation(caller.owner, operation_id),
            lambda info: info.state != "running",
            wait_s,
        )

    @router.post(
        "/operations/{operation_id}/cancel", response_model=say.OperationInfo, tags=["reservations"]
    )
    async def cancel_operation(caller: TheCaller, operation_id: Identifier) -> Response:
        """Cancel what is under way; what is done stays."""
        return await around.change(to.CancelOperation(operation_id), caller)
