package main

// catalogue lists the groups in the order in which they run.
func catalogue() (out []group) {
	for _, g := range []group{groupCU, groupSD, groupFT, groupDO, groupAZ, groupTK, groupRF, groupJK, groupCA, groupCN, groupDV, groupDP, groupRS, groupDS, groupFA} {
		out = append(out, withVariants(g))
	}
	return out
}
