// Package netns reads what /proc and package net tell of another network
// namespace: both tell of that of the thread that asks.
package netns
