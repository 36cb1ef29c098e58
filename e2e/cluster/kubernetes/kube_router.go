package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/cloudnativelabs/kube-router/v2/pkg/controllers/netpol"
	"github.com/cloudnativelabs/kube-router/v2/pkg/healthcheck"
	"github.com/cloudnativelabs/kube-router/v2/pkg/options"
	"github.com/cloudnativelabs/kube-router/v2/pkg/utils"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// runKubeRouter is kube-router as a firewall only: its controller of NetworkPolicies, unchanged,
// without its routing and its proxy.
func runKubeRouter() int {
	if err := enforceNetworkPolicies(); err != nil {
		fmt.Fprintln(os.Stderr, "kube-router:", err)
		return 1
	}
	return 0
}

func enforceNetworkPolicies() error {
	flags := flag.NewFlagSet("kube-router", flag.ContinueOnError)
	kubeconfig := flags.String("kubeconfig", "", "how the API server is reached")
	nodeName := flags.String("hostname-override", "", "the node whose pods are guarded")
	services := flags.String("service-cluster-ip-range", "", "the addresses of Services")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}
	restConfig, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(restConfig)
	if err != nil {
		return err
	}
	node, err := utils.GetNodeObject(client, *nodeName)
	if err != nil {
		return err
	}
	address, err := utils.GetPrimaryNodeIP(node)
	if err != nil {
		return err
	}

	// It guards the pods of its own node. All nodes of the local cluster share a network namespace,
	// and so one set of rules: each pod is shown to it as one of this node's.
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0,
		informers.WithTransform(func(object any) (any, error) {
			if pod, ok := object.(*corev1.Pod); ok && pod.Status.HostIP != "" {
				pod.Status.HostIP = address.String()
			}
			return object, nil
		}))
	pods := factory.Core().V1().Pods().Informer()
	namespaces := factory.Core().V1().Namespaces().Informer()
	policies := factory.Networking().V1().NetworkPolicies().Informer()

	config := options.NewKubeRouterConfig()
	config.EnableIPv4 = true
	config.HostnameOverride = *nodeName
	config.ClusterIPCIDRs = []string{*services}
	iptables, ipsets, err := netpol.NewIPTablesHandlers(config)
	if err != nil {
		return err
	}
	controller, err := netpol.NewNetworkPolicyController(client, config, pods, policies, namespaces,
		&sync.Mutex{}, iptables, ipsets)
	if err != nil {
		return err
	}
	for informer, handler := range map[cache.SharedIndexInformer]cache.ResourceEventHandler{
		pods:       controller.PodEventHandler,
		namespaces: controller.NamespaceEventHandler,
		policies:   controller.NetworkPolicyEventHandler,
	} {
		if _, err := informer.AddEventHandler(handler); err != nil {
			return err
		}
	}

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	factory.Start(ctx.Done())
	for kind, synced := range factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return fmt.Errorf("the cache of %v was not filled", kind)
		}
	}
	heartbeats := make(chan *healthcheck.ControllerHeartbeat)
	go func() {
		for range heartbeats { // nobody asks for its health
		}
	}()
	var running sync.WaitGroup
	running.Add(1)
	go controller.Run(heartbeats, ctx.Done(), &running)
	<-ctx.Done()
	running.Wait()
	// Nothing holds any more once nothing is reached from these.
	for _, chain := range []string{"KUBE-ROUTER-INPUT", "KUBE-ROUTER-FORWARD", "KUBE-ROUTER-OUTPUT"} {
		if err := iptables[corev1.IPv4Protocol].ClearChain("filter", chain); err != nil {
			return err
		}
	}
	return nil
}
