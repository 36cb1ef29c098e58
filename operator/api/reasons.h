// The reasons of conditions, groups and events, each with what it says. docs/api.md tells a user
// what to do about each; a test compares the two.
#pragma once

#include <array>
#include <string_view>

namespace dsm::api {

// All is well or on its way.
inline constexpr std::string_view kFirstVisit = "FirstVisit";  // the operator just saw it
inline constexpr std::string_view kAllGroupsReady = "AllGroupsReady";
inline constexpr std::string_view kScaledToZero = "ScaledToZero";
inline constexpr std::string_view kAsWanted = "AsWanted";  // nothing to do, nothing wrong
inline constexpr std::string_view kCreatingGroups = "CreatingGroups";
inline constexpr std::string_view kRollingUpdate = "RollingUpdate";
inline constexpr std::string_view kRemovingGroups = "RemovingGroups";
inline constexpr std::string_view kRecovering = "Recovering";  // a group that served is mended
inline constexpr std::string_view kRolloutPaused = "RolloutPaused";
inline constexpr std::string_view kNodeDraining = "NodeDraining";    // groups leave a node
inline constexpr std::string_view kGroupDraining = "GroupDraining";  // one is asked to go

// Why a group is not ready, in the order of its life.
inline constexpr std::string_view kCreating = "Creating";  // pods are being made
inline constexpr std::string_view kUnschedulable = "Unschedulable";
inline constexpr std::string_view kWaitingForAdmission = "WaitingForAdmission";  // in a queue
inline constexpr std::string_view kWaitingForGPU = "WaitingForGPU";
inline constexpr std::string_view kWaitingForCPU = "WaitingForCPU";
inline constexpr std::string_view kWaitingForMemory = "WaitingForMemory";
inline constexpr std::string_view kWaitingForVolume = "WaitingForVolume";
inline constexpr std::string_view kStarting = "Starting";  // image, container
inline constexpr std::string_view kImagePull = "ImagePull";
inline constexpr std::string_view kContainerConfig = "ContainerConfig";
inline constexpr std::string_view kLoadingWeights = "LoadingWeights";
inline constexpr std::string_view kRendezvous = "Rendezvous";
inline constexpr std::string_view kLeaderSilent = "LeaderSilent";  // its status cannot be had
inline constexpr std::string_view kCrashLoop = "CrashLoop";
inline constexpr std::string_view kOOMKilled = "OOMKilled";
inline constexpr std::string_view kWorkerFailed = "WorkerFailed";  // the leader says Failed
inline constexpr std::string_view kProbeFailed = "ProbeFailed";    // its answers are wrong
inline constexpr std::string_view kDeviceError = "DeviceError";    // of a rank, as it says itself
inline constexpr std::string_view kDeviceLost = "DeviceLost";      // no restart mends its GPU
inline constexpr std::string_view kDeviceDegraded = "DeviceDegraded";  // the same, and it serves
inline constexpr std::string_view kPodLost = "PodLost";
inline constexpr std::string_view kNodeLost = "NodeLost";            // a pod that cannot be ended
inline constexpr std::string_view kFallingAsleep = "FallingAsleep";  // as spec.sleep says
inline constexpr std::string_view kAsleep = "Asleep";
inline constexpr std::string_view kWaking = "Waking";
inline constexpr std::string_view kDraining = "Draining";
inline constexpr std::string_view kDrainBlocked = "DrainBlocked";  // no room for another group

// Why groups do not follow the load.
inline constexpr std::string_view kMetricsApiPending = "MetricsApiPending";  // not known yet
inline constexpr std::string_view kMetricsApiOff = "MetricsApiOff";  // the operator serves none
inline constexpr std::string_view kForeignMetricsServer = "ForeignMetricsServer";
inline constexpr std::string_view kAutoscalerInactive = "AutoscalerInactive";

// What a person has to change.
inline constexpr std::string_view kInvalidSpec = "InvalidSpec";
inline constexpr std::string_view kNameConflict = "NameConflict";
inline constexpr std::string_view kQuotaExceeded = "QuotaExceeded";
inline constexpr std::string_view kWriteRefused = "WriteRefused";  // admission, or a bad field
inline constexpr std::string_view kRolledBack = "RolledBack";      // the spec's revision is not run
inline constexpr std::string_view kSurgeUnschedulable = "SurgeUnschedulable";
inline constexpr std::string_view kNotAllowed = "NotAllowed";  // by the model's tenant
inline constexpr std::string_view kDoesNotFit = "DoesNotFit";  // into the memory of its pods

// Of a tenant alone.
inline constexpr std::string_view kAllNamespacesReady = "AllNamespacesReady";
inline constexpr std::string_view kApplying = "Applying";  // objects are being written
inline constexpr std::string_view kNamespaceMissing = "NamespaceMissing";
inline constexpr std::string_view kNamespaceOwnedByOther = "NamespaceOwnedByOther";
inline constexpr std::string_view kInvalidKeys = "InvalidKeys";

// Those that a worker gives itself: in its status line, and before a colon at the beginning of its
// termination message.
inline constexpr std::array kWorkerReasons = {kProbeFailed, kDeviceError, kDeviceLost};

inline constexpr std::array kAllReasons = {kFirstVisit,
                                           kAllGroupsReady,
                                           kScaledToZero,
                                           kAsWanted,
                                           kCreatingGroups,
                                           kRollingUpdate,
                                           kRemovingGroups,
                                           kRecovering,
                                           kRolloutPaused,
                                           kNodeDraining,
                                           kGroupDraining,
                                           kCreating,
                                           kUnschedulable,
                                           kWaitingForAdmission,
                                           kWaitingForGPU,
                                           kWaitingForCPU,
                                           kWaitingForMemory,
                                           kWaitingForVolume,
                                           kStarting,
                                           kImagePull,
                                           kContainerConfig,
                                           kLoadingWeights,
                                           kRendezvous,
                                           kLeaderSilent,
                                           kCrashLoop,
                                           kOOMKilled,
                                           kWorkerFailed,
                                           kProbeFailed,
                                           kDeviceError,
                                           kDeviceLost,
                                           kDeviceDegraded,
                                           kPodLost,
                                           kNodeLost,
                                           kFallingAsleep,
                                           kAsleep,
                                           kWaking,
                                           kDraining,
                                           kDrainBlocked,
                                           kInvalidSpec,
                                           kNameConflict,
                                           kQuotaExceeded,
                                           kWriteRefused,
                                           kRolledBack,
                                           kSurgeUnschedulable,
                                           kMetricsApiPending,
                                           kMetricsApiOff,
                                           kForeignMetricsServer,
                                           kAutoscalerInactive,
                                           kNotAllowed,
                                           kDoesNotFit,
                                           kAllNamespacesReady,
                                           kApplying,
                                           kNamespaceMissing,
                                           kNamespaceOwnedByOther,
                                           kInvalidKeys};

}  // namespace dsm::api
