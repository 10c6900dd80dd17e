package main

// catalogue lists the groups in the order in which they run.
func catalogue() []group {
	return []group{groupCU, groupSD, groupFT, groupDO, groupAZ, groupTK, groupRF, groupJK, groupCA, groupCN, groupDV, groupDP, groupRS, groupDS, groupFA}
}
