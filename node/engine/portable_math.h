// exp and log that give the same bits on every machine: plain double arithmetic in a fixed order. A
// C library picks its variant by CPU, and a last bit can change which token is drawn.
//
// Pure functions; any thread.
#pragma once

namespace muselet {

// e^x; relative error below 1e-14. 0 for x < -708, +inf for x > 709.
double PortableExp(double x);

// Natural logarithm of a positive, finite, normal x; absolute error below 1e-14 times the result's
// magnitude or 1, whichever is larger.
double PortableLog(double x);

}  // namespace muselet
