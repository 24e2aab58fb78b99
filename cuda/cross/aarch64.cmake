# Cross build for 64-bit ARM on another machine; the tests run in QEMU's user mode.
#
#   cmake -S cuda -B build/aarch64 -DSPLATINIT_CUDA=OFF -DSPLATINIT_TESTS=ON -DCMAKE_TOOLCHAIN_FILE=cuda/cross/aarch64.cmake
#
# On Debian and Ubuntu: apt-get install g++-aarch64-linux-gnu qemu-user
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
# QEMU finds the target's loader and libc below -L; CMake finds its OpenMP there.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
