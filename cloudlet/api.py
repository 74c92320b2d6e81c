"""The controller's management API: what `packetcloud vi`, `node` and `cloudlet` ask.

No authentication: it listens on a loopback address unless the operator says otherwise.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from packetcloud.cloudlet import view
from packetcloud.cloudlet.controller import Controller, Launches
from packetcloud.cloudlet.core import events as saw
from packetcloud.cloudlet.core.instances import Vi
from packetcloud.cloudlet.errors import CloudletError
from packetcloud.cloudlet.schemas import (
    EvacuateRequest,
    Health,
    LaunchRequest,
    MigrateRequest,
    NodeInfo,
    OperationAccepted,
    OperationInfo,
    ResizeRequest,
    ServiceInfo,
    StatusInfo,
    StopRequest,
    ViInfo,
    WaitSeconds,
)

API_VERSION = "1"


def make_app(
    controller: Controller, launches: Launches, registry: CollectorRegistry, control_listen: str
) -> FastAPI:
    """Return the API of a running controller."""
    app = FastAPI(
        title="PacketCloud cloudlet controller",
        version=API_VERSION,
        description="VIs, compute nodes and services of one cloudlet.",
        docs_url=None,
        redoc_url=None,
    )

    @app.exception_handler(CloudletError)
    async def about_to_end(_request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 503)

    # Coroutines although nothing waits: FastAPI would run plain functions in worker threads, and
    # the controller belongs to the loop's thread.

    @app.get("/healthz")
    async def healthz() -> Health:
        """Say whether the controller works: it answers."""
        return Health(status="ok")

    @app.get("/readyz", responses={503: {"model": Health}})
    async def readyz(response: Response) -> Health:
        """Say whether router and nodes answer."""
        silent = [node.name for node in view.nodes_of(controller) if node.state != "ready"]
        if controller.core.router is None:
            silent.insert(0, "the router")
        if silent:
            response.status_code = 503
            return Health(status="failing", detail=f"no answer from {', '.join(silent)}")
        return Health(status="ok")

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Return the metrics in Prometheus' text format."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/status")
    async def status() -> StatusInfo:
        """Return how the controller is."""
        return view.status_of(controller, control_listen)

    @app.get("/v1/services")
    async def services() -> list[ServiceInfo]:
        """List the declared services."""
        return view.services_of(controller)

    @app.get("/v1/nodes")
    async def nodes() -> list[NodeInfo]:
        """List the compute nodes."""
        return view.nodes_of(controller)

    @app.post("/v1/nodes/{name}/evacuate", status_code=202)
    async def evacuate(name: str, request: EvacuateRequest) -> OperationAccepted:
        """Move every VI away from a node, or let it be used again."""
        return _begun(controller.wish(lambda n: saw.EvacuateWished(n, name, request.over)))

    @app.get("/v1/vis")
    async def vis() -> list[ViInfo]:
        """List the VIs."""
        return view.vis_of(controller, launches)

    @app.post("/v1/vis", status_code=202)
    async def launch(request: LaunchRequest) -> OperationAccepted:
        """Launch one VI more for a service."""
        return _begun(
            controller.wish(
                lambda n: saw.LaunchWished(n, request.service, request.vi_type, request.node)
            )
        )

    @app.get("/v1/vis/{number}", responses={404: {"description": "No such VI"}})
    async def vi(number: int) -> ViInfo:
        """Return one VI."""
        return view.vi_info(controller, launches, _found(number))

    @app.get("/v1/vis/{number}/logs", response_class=Response)
    async def logs(number: int) -> Response:
        """Return the end of a VI's console."""
        text = await controller.logs(_found(number))
        return Response(text, media_type="text/plain")

    @app.post("/v1/vis/{number}/stop", status_code=202)
    async def stop(number: int, request: StopRequest) -> OperationAccepted:
        """Stop a VI; it is not replaced."""
        return _begun(controller.wish(lambda n: saw.StopWished(n, number, request.drain)))

    @app.post("/v1/vis/{number}/restart", status_code=202)
    async def restart(number: int) -> OperationAccepted:
        """Start a VI again, also out of quarantine."""
        return _begun(controller.wish(lambda n: saw.RestartWished(n, number)))

    @app.post("/v1/vis/{number}/resize", status_code=202)
    async def resize(number: int, request: ResizeRequest) -> OperationAccepted:
        """Give a VI another type while it runs."""
        return _begun(controller.wish(lambda n: saw.ResizeWished(n, number, request.vi_type)))

    @app.post("/v1/vis/{number}/migrate", status_code=202)
    async def migrate(number: int, request: MigrateRequest) -> OperationAccepted:
        """Move a VI to another node."""
        return _begun(controller.wish(lambda n: saw.MigrateWished(n, number, request.node)))

    @app.get("/v1/operations/{number}", responses={404: {"description": "No such operation"}})
    async def operation(
        number: int, wait_s: Annotated[WaitSeconds, Query()] = 0.0
    ) -> OperationInfo:
        """Return how an operation is; with `wait_s`, wait so long for its end."""
        if wait_s and controller.is_known(number):
            await controller.ended(number, wait_s)
        info = view.operation_of(controller, number)
        if info is None:
            raise HTTPException(404, f"no operation {number}")
        return info

    def _found(number: int) -> Vi:
        one = controller.core.saved.vis.get(number)
        if one is None:
            numbers = ", ".join(map(str, sorted(controller.core.saved.vis))) or "none"
            raise HTTPException(404, f"no VI {number}; there are: {numbers}")
        return one

    def _begun(number: int) -> OperationAccepted:
        return OperationAccepted(operation=number)

    return app
