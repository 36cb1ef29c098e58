// What Kueue (kueue.x-k8s.io) has to know of a group and what is known of it. Kueue's webhook puts
// a scheduling gate and a finalizer on pods that name a queue; when the queue has quota for all
// pods of a group, it takes the gates away. For Kueue a group is a "plain pod group" that serves:
// the labels are those that its own integrations give the pods of StatefulSets and LeaderWorkerSets
// (seen with v0.17). Pure; private to operator/plan but for waiting_words().
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "operator/api/spec.h"
#include "operator/plan/observed.h"
#include "operator/plan/plan.h"

namespace dsm::plan {

// On a model: the queue, where its spec names none.
inline constexpr std::string_view kQueueLabel = "kueue.x-k8s.io/queue-name";
inline constexpr std::string_view kQueueGate = "kueue.x-k8s.io/admission";
inline constexpr std::string_view kQueueFinalizer = "kueue.x-k8s.io/managed";

// While a group waits, it is asked again after this time what it waits for. That it waits no longer
// is seen at once, on its pods.
inline constexpr Seconds kQueueWordsEvery{15};

// Into the metadata of a pod of a group of so many.
void join_queue(const std::string& queue, const std::string& group, int pods,
                nlohmann::json& metadata);

// Why a Workload (kueue.x-k8s.io) is not admitted, in Kueue's words; empty when it does not say.
std::string waiting_words(const nlohmann::json& workload);

// The groups of a model whose pods wait for Kueue, by name.
std::vector<std::string> groups_in_queue(const std::vector<PodView>& pods);

// Pods that have ended, were deleted, and stay there only for Kueue's finalizer. Kueue takes it off
// when the pod has a replacement; ours has the same name and so must wait until it is gone. As the
// controllers of Kueue's own integrations do, ours takes it off, also when the model is gone or
// made anew under its name: those of the one before hold its quota.
std::vector<Release> releases(const std::vector<PodView>& pods);

}  // namespace dsm::plan
