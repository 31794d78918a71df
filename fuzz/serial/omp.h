// What the library asks of OpenMP, for a program of one thread: libFuzzer's targets are compiled without it.
#pragma once

inline int omp_get_thread_num() { return 0; }
inline int omp_get_num_threads() { return 1; }
inline int omp_get_max_threads() { return 1; }
inline void omp_set_num_threads(int) {}
