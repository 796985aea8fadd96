// Words for a device's memory and threads, in the Metal Shading Language.
#ifndef SHARED
#define SHARED(type, name, count) threadgroup type name[count]
#endif
#define BARRIER threadgroup_barrier(mem_flags::mem_threadgroup)
