// Reads a CNI network configuration list on stdin as libcni, win-bridge and host-local do, with their own types,
// and prints what win-bridge would hand to HNS. A key or a setting that those types do not have is an error.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/Microsoft/hcsshim"
	"github.com/Microsoft/hcsshim/hcn"
	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/plugins/pkg/hns"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/allocator"
	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/testing"
)

// netConf is win-bridge's, with the part of it that goes to the IPAM plugin as that plugin declares it.
type netConf struct {
	hns.NetConf
	IPMasqNetwork string               `json:"ipMasqNetwork,omitempty"`
	IPAM          allocator.IPAMConfig `json:"ipam"`
}

// route is the setting of v1 that hcsshim has no type for; its keys are those of win-bridge's sample-v1.conf.
type route struct {
	Type, DestinationPrefix string
	NeedEncap               bool
}

type answer struct {
	Network    string            `json:"network"`
	Plugin     string            `json:"plugin"`
	ApiVersion int               `json:"apiVersion"`
	Gateway    string            `json:"gateway"`
	Addresses  []string          `json:"addresses"`
	Servers    []string          `json:"servers"`
	Search     []string          `json:"search"`
	Policies   []json.RawMessage `json:"policies"`
}

func main() {
	result, err := check(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		panic(err)
	}
}

func check(from io.Reader) (*answer, error) {
	given, err := io.ReadAll(from)
	if err != nil {
		return nil, err
	}
	list, err := libcni.NetworkConfFromBytes(given)
	if err != nil {
		return nil, err
	}
	if err := utils.ValidateNetworkName(list.Name); err != nil {
		return nil, err
	}
	if len(list.Plugins) != 1 {
		return nil, fmt.Errorf("%d plugins", len(list.Plugins))
	}
	// What libcni adds before it calls the plugin.
	added := map[string]interface{}{"name": list.Name, "cniVersion": list.CNIVersion}
	passed, err := libcni.InjectConf(list.Plugins[0], added)
	if err != nil {
		return nil, err
	}
	return asWinBridge(passed.Bytes)
}

func asWinBridge(passed []byte) (*answer, error) {
	conf := netConf{}
	if err := strict(passed, &conf); err != nil {
		return nil, err
	}
	addresses, gateway, err := allocated(passed)
	if err != nil {
		return nil, err
	}
	conf.ApplyOutboundNatPolicy(conf.IPMasqNetwork)
	if conf.LoopbackDSR {
		conf.ApplyLoopbackDSRPolicy(&addresses[0])
	}
	policies, err := handedOver(&conf.NetConf)
	if err != nil {
		return nil, err
	}
	dns := conf.GetDNS()
	return &answer{conf.Name, conf.Type, conf.ApiVersion, gateway.String(), text(addresses), dns.Nameservers, dns.Search, policies}, nil
}

// allocated are all addresses that host-local gives out, in order, and the gateway that win-bridge makes of the
// first: processEndpointArgs.
func allocated(passed []byte) ([]net.IP, net.IP, error) {
	ipam, _, err := allocator.LoadIPAMConfig(passed, "")
	if err != nil {
		return nil, nil, err
	}
	store := testing.NewFakeStore(map[string]string{}, map[string]net.IP{})
	allocator := allocator.NewIPAllocator(&ipam.Ranges[0], store, 0)
	var found []net.IP
	var gateway net.IP
	for {
		got, err := allocator.Get(fmt.Sprintf("container-%d", len(found)), "eth0", nil)
		if err != nil {
			break
		}
		if gateway == nil {
			gateway = got.Address.IP.Mask(got.Address.Mask)
			gateway[len(gateway)-1] += 2
		}
		found = append(found, got.Address.IP)
	}
	if len(found) == 0 {
		return nil, nil, fmt.Errorf("host-local has no address to give")
	}
	return found, gateway, nil
}

// handedOver are the policies, each checked against the type of its settings.
func handedOver(conf *hns.NetConf) ([]json.RawMessage, error) {
	if conf.ApiVersion != 2 {
		raw := conf.GetHNSEndpointPolicies()
		for _, policy := range raw {
			if err := checkV1(policy); err != nil {
				return nil, fmt.Errorf("%s: %w", policy, err)
			}
		}
		return raw, nil
	}
	found := []json.RawMessage{}
	for _, policy := range conf.GetHostComputeEndpointPolicies() {
		if err := checkV2(policy); err != nil {
			return nil, fmt.Errorf("%s: %w", policy.Settings, err)
		}
		text, err := json.Marshal(policy)
		if err != nil {
			return nil, err
		}
		found = append(found, text)
	}
	if len(found) != len(conf.Policies) {
		return nil, fmt.Errorf("win-bridge leaves out %d of %d policies", len(conf.Policies)-len(found), len(conf.Policies))
	}
	return found, nil
}

func checkV1(policy json.RawMessage) error {
	var kind hcsshim.Policy
	if err := json.Unmarshal(policy, &kind); err != nil {
		return err
	}
	switch kind.Type {
	case hcsshim.OutboundNat:
		return strict(policy, &hcsshim.OutboundNatPolicy{})
	case hcsshim.ACL:
		return strict(policy, &hcsshim.ACLPolicy{})
	case hcsshim.Route:
		return strict(policy, &route{})
	}
	return fmt.Errorf("HNS has no policy %q", kind.Type)
}

func checkV2(policy hcn.EndpointPolicy) error {
	switch policy.Type {
	case hcn.OutBoundNAT:
		return strict(policy.Settings, &hcn.OutboundNatPolicySetting{})
	case hcn.ACL:
		return strict(policy.Settings, &hcn.AclPolicySetting{})
	case hcn.SDNRoute:
		return strict(policy.Settings, &hcn.SDNRoutePolicySetting{})
	}
	return fmt.Errorf("HCN has no policy %q", policy.Type)
}

func strict(text []byte, into interface{}) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}

func text(addresses []net.IP) []string {
	var found []string
	for _, one := range addresses {
		found = append(found, one.String())
	}
	return found
}
