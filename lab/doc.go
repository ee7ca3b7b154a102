// Package lab is a module of its own for experiments that need more than the
// library may require, and more time than its tests may take. Package serial
// records what concurrent transactions see and lets porcupine decide whether they
// might have run one after the other; the tests here count what is lost when many
// write the same keys, and try to bring a transaction to a standstill.
package lab
