# The install rules: headers, static library, program, and what find_package(bp) and pkg-config read.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(BP_CMAKE_DIR ${CMAKE_INSTALL_LIBDIR}/cmake/bp)

install(TARGETS bp EXPORT bpTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT bpTargets NAMESPACE bp:: DESTINATION ${BP_CMAKE_DIR})
install(FILES ${BP_HEADERS} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/bp)
if(TARGET bp_program)
  install(TARGETS bp_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/bpConfig.cmake.in ${PROJECT_BINARY_DIR}/bpConfig.cmake
                              INSTALL_DESTINATION ${BP_CMAKE_DIR})
# Before 1.0 a minor release may change the contracts.
write_basic_package_version_file(${PROJECT_BINARY_DIR}/bpConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/bpConfig.cmake ${PROJECT_BINARY_DIR}/bpConfigVersion.cmake
              ${PROJECT_SOURCE_DIR}/cmake/FindDNNL.cmake
        DESTINATION ${BP_CMAKE_DIR})

# Relative, so that an installed tree can be moved.
file(RELATIVE_PATH BP_PC_TO_PREFIX /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
configure_file(${PROJECT_SOURCE_DIR}/cmake/bp.pc.in ${PROJECT_BINARY_DIR}/bp.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/bp.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
