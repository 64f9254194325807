"""UpdateFeatures: which levels of features could be set; there is nothing to choose.

Versions 0-2. What ApiVersions tells is always on (`api_versions.FEATURES`): to ask for that is fine and changes nothing,
everything else is refused in Kafka's words, all or nothing. Whether a downgrade would be allowed (0) and which kind it
is (since 1) makes no difference. Since version 2 there are no results of single features.
Source: FeatureControlManager.updateFeature, ControllerApis.handleUpdateFeatures (KIP-584, KIP-1022).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zafka.actors.gateway.api_versions import FEATURES
from zafka.actors.gateway.connection import Exchange
from zafka.transport.kafka.api_keys import ApiKey
from zafka.transport.kafka.errors import ErrorCode
from zafka.transport.kafka.messages.update_features import (
    FeatureUpdateKey,
    UpdatableFeatureResult,
    UpdateFeaturesRequest,
    UpdateFeaturesResponse,
)

if TYPE_CHECKING:
    from zafka.actors.gateway.gateway import Gateway

KEY = ApiKey.UPDATE_FEATURES
VERSIONS = range(3)
ADVERTISED = VERSIONS

UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE = 1, 2, 3
RESULTS_UNTIL = 1


def handle(gateway: Gateway, exchange: Exchange, request: UpdateFeaturesRequest) -> None:
    controller = min(gateway.cluster.brokers, default=gateway.broker_id)  # as Metadata tells it
    for update in request.feature_updates:
        reason = why_not(update, controller)
        if reason:
            exchange.answer(UpdateFeaturesResponse(
                error_code=ErrorCode.INVALID_UPDATE_VERSION,
                error_message="The update failed for all features since the following feature had an error: "
                f"Invalid update version {update.max_version_level} for feature {update.feature}. {reason}"))
            return
    results = [UpdatableFeatureResult(update.feature, 0, "NONE") for update in request.feature_updates]
    exchange.answer(UpdateFeaturesResponse(error_message=None, results=results if exchange.version <= RESULTS_UNTIL else []))


def why_not(update: FeatureUpdateKey, controller: int) -> str:
    """Why a feature cannot have this level, in Kafka's words, or ""."""
    if update.upgrade_type not in (UPGRADE, SAFE_DOWNGRADE, UNSAFE_DOWNGRADE):
        return "The controller does not support the given upgrade type."
    if update.max_version_level < 0:
        return "A feature version cannot be less than 0."
    level = FEATURES.get(update.feature)
    if level is None:
        if update.max_version_level == 0:
            return f"Feature {update.feature} not found."
        return f"Local controller {controller} does not support this feature."
    if update.max_version_level != level:
        return f"Local controller {controller} only supports versions {level}-{level}"
    return ""
